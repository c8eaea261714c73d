// Import and export: files of one JSON object a line.
import { send } from "../api.js";
import { count, html, plural, useState } from "../lib.js";
import { announce, Failure, Head } from "../parts.js";

const KINDS = {
  items: ["Items", '{"item_id": "p1", "title": "Green tea", "features": {"category": "tea"}}'],
  users: ["Users", '{"user_id": "ann", "features": {"country": "DE"}}'],
  events: ["Events", '{"user_id": "ann", "item_id": "p1", "type": "purchase", "time": 1767225600, "event_id": "e1"}'],
};
const NDJSON = "application/x-ndjson";

function Import() {
  const [kind, setKind] = useState("items");
  const [file, setFile] = useState(null);
  const [busy, setBusy] = useState(false);
  const [result, setResult] = useState(null);
  const [failure, setFailure] = useState(null);
  const start = async (event) => {
    event.preventDefault();
    setBusy(true);
    setFailure(null);
    setResult(null);
    try {
      const answer = await send("POST", `/v1/import/${kind}`, { body: file, type: NDJSON });
      const sums = await answer.json();
      setResult(sums);
      announce(`${plural(sums.stored, "line")} stored, ${sums.refused} refused`);
    } catch (error) {
      setFailure(error);
    }
    setBusy(false);
  };
  return html`<section class="panel" aria-labelledby="import"><h2 id="import">Import</h2>
    <form class="stack close" onSubmit=${start}>
      <div class="chips" role="group" aria-label="What to import">${Object.entries(KINDS).map(([name, [text]]) => html`<button type="button" key=${name} class="button chip"
        aria-pressed=${kind === name} onClick=${() => setKind(name)}>${text}</button>`)}</div>
      <p class="muted small">A file of one JSON object a line, such as</p>
      <pre class="code" tabindex="0">${KINDS[kind][1]}</pre>
      <label class="field"><span>File</span><input class="input" type="file" accept=".ndjson,.jsonl,.json,application/x-ndjson" onChange=${(event) => setFile(event.target.files[0] ?? null)} /></label>
      <div class="row"><button class="button primary" disabled=${!file || busy}>${busy ? "Storing…" : "Import"}</button></div>
    </form>
    <div class="stack close" role="status">
      ${failure && html`<${Failure} error=${failure} />`}
      ${result && html`<p class=${"notice " + (result.refused ? "warn" : "good")}><strong>${count(result.stored)} of ${plural(result.lines, "line")} stored</strong>${
        result.repeated ? `, ${count(result.repeated)} were known already` : ""}${result.refused ? `, ${count(result.refused)} refused` : ""}.</p>`}
      ${result?.errors?.length > 0 && html`<ul class="lines">${result.errors.map((one) => html`<li key=${one.line}><span class="muted number">line ${one.line}</span><span class="grow wrap">${one.error}</span></li>`)}</ul>`}
    </div>
  </section>`;
}

function Export() {
  const [busy, setBusy] = useState("");
  const [failure, setFailure] = useState(null);
  // By fetch and not by a plain link: a link cannot carry the API key.
  const save = async (kind) => {
    setBusy(kind);
    setFailure(null);
    try {
      const blob = await (await send("GET", `/v1/export/${kind}`)).blob();
      const node = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: `${kind}.ndjson` });
      node.click();
      setTimeout(() => URL.revokeObjectURL(node.href), 10_000);
    } catch (error) {
      setFailure(error);
    }
    setBusy("");
  };
  return html`<section class="panel" aria-labelledby="export"><h2 id="export">Export</h2>
    <div class="stack close">
      <p class="muted small">Everything that was stored since training, in the form that the import takes. The impressions are the lists that were served.</p>
      <div class="row">${["events", "items", "users", "impressions"].map((kind) => html`<button key=${kind} class="button" disabled=${busy !== ""} onClick=${() => save(kind)}>${busy === kind ? "Reading…" : kind}</button>`)}</div>
      ${failure && html`<${Failure} error=${failure} />`}
    </div>
  </section>`;
}

export const Data = () => html`
  <${Head} title="Import and export">Bulk data in and out. A line that does not fit is refused and named; the others are stored.<//>
  <div class="two"><${Import} /><${Export} /></div>`;
