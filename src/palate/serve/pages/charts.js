// Plots: lines over time (uPlot), and intervals (plain elements).
import UPlot from "./vendor/uplot.js";
import { html, percent, useEffect, useRef } from "./lib.js";

const HEIGHT = 190;
const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/**
 * Lines over time.
 * @param {{title: string, times: number[], series: {label: string, values: number[]}[], format: (value: number) => string}} props
 */
export function TimePlot({ title, times, series, format }) {
  const place = useRef();
  const plot = useRef();
  const shown = useRef();
  shown.current = [times, ...series.map((one) => one.values)];

  useEffect(() => {
    const draw = () => {
      plot.current?.destroy();
      const axis = { stroke: token("--muted"), font: `12px ${token("--font")}`, grid: { stroke: token("--plot-grid"), width: 1 }, ticks: { show: false } };
      const options = {
        width: place.current.clientWidth || 300,
        height: HEIGHT,
        legend: { show: false },
        cursor: { y: false, points: { size: 7 } },
        scales: { y: { range: (_, low, high) => [0, Math.max((high ?? 0) * 1.1, 1)] } },
        axes: [
          { ...axis, size: 30, space: 90, values: (_, ticks) => ticks.map((one) => new Date(one * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false })) },
          { ...axis, size: 58, values: (_, ticks) => ticks.map(format) },
        ],
        series: [{}, ...series.map((one, n) => ({ label: one.label, stroke: token(`--plot-${n + 1}`), width: 2, spanGaps: true, points: { show: false } }))],
      };
      plot.current = new UPlot(options, shown.current, place.current);
    };
    draw();
    const sized = new ResizeObserver(() => {
      const width = place.current?.clientWidth;
      if (width && plot.current.width !== width) plot.current.setSize({ width, height: HEIGHT });
    });
    sized.observe(place.current);
    window.addEventListener("themechange", draw);
    return () => {
      sized.disconnect();
      window.removeEventListener("themechange", draw);
      plot.current.destroy();
    };
  }, [series.length]);
  useEffect(() => plot.current.setData(shown.current), [times.length, times.at(-1)]);

  // A slot without a request has no latency: then the latest one that has.
  const now = (values) => values.findLast((one) => one != null);
  const text = (values) => (now(values) === undefined ? "–" : format(now(values)));
  const last = series.map((one) => `${one.label} ${text(one.values)}`).join(", ");
  return html`<figure class="plot">
    <ul class="plot-legend" aria-hidden="true">${series.map((one) => html`<li key=${one.label}><i></i>${one.label} <strong>${text(one.values)}</strong></li>`)}</ul>
    <div ref=${place} role="img" aria-label=${`${title} over the last minutes; now ${last}`}></div>
  </figure>`;
}

/**
 * Values with their intervals on one axis from 0, for one model or two.
 * @param {{rows: {name: string, marks: ({value: number, low?: number, high?: number} | undefined)[]}[]}} props
 */
export function Intervals({ rows, label }) {
  const most = Math.max(...rows.flatMap((row) => row.marks.map((mark) => mark?.high ?? mark?.value ?? 0)), 1e-9) * 1.04;
  const share = (value) => `${Math.max(0, Math.min(100, (100 * value) / most))}%`;
  const both = rows.some((row) => row.marks.length > 1);
  const text = (mark) => (mark ? `${mark.value.toFixed(3)}${mark.low == null ? "" : ` (${mark.low.toFixed(3)} to ${mark.high.toFixed(3)})`}` : "unknown");
  return html`<div class="intervals" role="group" aria-label=${label}>${rows.map((row) => html`
    <span key=${row.name}>${row.name}</span>
    <div class=${"axis" + (both ? " both" : "")} role="img" aria-label=${`${row.name}: ${row.marks.map(text).join("; ")}`}>
      ${row.marks.map((mark, n) => mark && html`
        ${mark.low != null && html`<div class=${"span " + (n ? "second" : "first")} style=${{ left: share(mark.low), width: `calc(${share(mark.high)} - ${share(mark.low)})` }}></div>`}
        <div class=${"dot " + (n ? "second" : "first")} style=${{ left: share(mark.value) }}></div>`)}
    </div>
    <span class="number">${row.marks.map((mark, n) => html`<div key=${n}>${mark ? mark.value.toFixed(3) : "–"}</div>`)}</span>
  `)}</div>`;
}

/**
 * Shares of a whole as bars.
 * @param {{rows: {name: string, share: number}[], label: string}} props
 */
export function Shares({ rows, label }) {
  return html`<div class="intervals" role="group" aria-label=${label}>${rows.map((row) => html`
    <span key=${row.name}>${row.name}</span>
    <div class="axis" role="img" aria-label=${`${row.name}: ${percent(row.share)}`}><div class="bar" style=${{ width: `${100 * row.share}%` }}></div></div>
    <span class="number">${percent(row.share)}</span>
  `)}</div>`;
}

/**
 * A difference with its interval on an axis around 0.
 * @param {{difference: number | null, low: number | null, high: number | null, from: string, to: string}} props
 */
export function Difference({ difference, low, high, from, to }) {
  const most = 1.15 * Math.max(...[difference, low, high].map((one) => Math.abs(one ?? 0)), 1e-9);
  const share = (value) => `${50 + (50 * value) / most}%`;
  const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(4)}`;
  if (difference == null) return html`<p class="muted small">No difference yet: both arms need users.</p>`;
  const interval = low == null ? "" : `, 95 % interval ${signed(low)} to ${signed(high)}`;
  return html`<figure class="difference">
    <div class="axis" role="img" aria-label=${`${to} minus ${from}: ${signed(difference)}${interval}`}>
      <div class="zero"></div>
      ${low != null && html`<div class="span first" style=${{ left: share(low), width: `calc(${share(high)} - ${share(low)})` }}></div>`}
      <div class="dot first" style=${{ left: share(difference) }}></div>
    </div>
    <figcaption aria-hidden="true"><span>← ${from} better</span><span>${to} better →</span></figcaption>
    <p><strong class="number">${signed(difference)}</strong> <span class="muted small number">${interval.slice(2)}</span></p>
  </figure>`;
}
