// Settings: the look of the page, the key of this tab, the keys of the server.
import { apiKey, get, post, remove, setApiKey } from "../api.js";
import { html, useLoad, useState } from "../lib.js";
import { announce, Failure, Head, Icon, Loaded } from "../parts.js";

const THEMES = { system: "As the system", light: "Light", dark: "Dark" };

function Look() {
  const [theme, setTheme] = useState(window.palateTheme.chosen());
  const choose = (name) => {
    window.palateTheme.choose(name);
    setTheme(name);
  };
  return html`<section class="panel" aria-labelledby="look"><h2 id="look">Look</h2>
    <div class="chips" role="group" aria-label="Theme">${Object.entries(THEMES).map(([name, text]) => html`<button key=${name} class="button chip" aria-pressed=${theme === name} onClick=${() => choose(name)}>${text}</button>`)}</div>
  </section>`;
}

function OwnKey() {
  const [key, setKey] = useState(apiKey());
  const save = (event) => {
    event.preventDefault();
    setApiKey(key.trim());
    announce("The key is used from now on");
  };
  return html`<section class="panel" aria-labelledby="own"><h2 id="own">API key of this tab</h2>
    <form class="stack close" onSubmit=${save}>
      <label class="field"><span>Key</span><input class="input" type="password" autocomplete="off" value=${key} onInput=${(event) => setKey(event.target.value)} />
        <small>Needed where the server listens beyond this machine. It is forgotten when the tab is closed.</small></label>
      <div class="row"><button class="button primary">Use this key</button>
        ${apiKey() && html`<button type="button" class="button" onClick=${() => { setKey(""); setApiKey(""); }}>Forget it</button>`}</div>
    </form>
  </section>`;
}

function Keys() {
  const keys = useLoad((signal) => get("/v1/keys", {}, signal), []);
  const [name, setName] = useState("");
  const [role, setRole] = useState("read");
  const [made, setMade] = useState(null);
  const [failure, setFailure] = useState(null);
  const create = async (event) => {
    event.preventDefault();
    setFailure(null);
    try {
      setMade(await post("/v1/keys", { name: name.trim(), role }));
      setName("");
      keys.reload();
    } catch (error) {
      setFailure(error);
    }
  };
  const revoke = async (key) => {
    await remove(`/v1/keys/${encodeURIComponent(key.key_id)}`).catch(setFailure);
    announce(`Revoked ${key.name}`);
    keys.reload();
  };
  return html`<section class="panel" aria-labelledby="keys"><h2 id="keys">API keys of the server</h2>
    <div class="stack close">
      <${Loaded} state=${keys} children=${(data) => data.keys.length
        ? html`<div class="table-scroll" tabindex="0" role="region" aria-label="Table of keys"><table><thead><tr><th>Name</th><th>Role</th><th>Made</th><th><span class="hidden-text">Revoke</span></th></tr></thead>
            <tbody>${data.keys.map((key) => html`<tr key=${key.key_id}><td>${key.name}<br /><small class="muted">${key.key_id}</small></td><td>${key.role}</td><td>${new Date(key.created * 1000).toLocaleDateString()}</td>
              <td class="number"><button class="button icon quiet small" aria-label=${`Revoke ${key.name}`} onClick=${() => revoke(key)}><${Icon} name="trash" /></button></td></tr>`)}</tbody></table></div>`
        : html`<p class="muted small">None. On this machine alone no key is needed.</p>`} />
      ${made && html`<div class="notice good" role="status"><p><strong>Copy the key now: it is shown only once.</strong></p><pre class="code" tabindex="0">${made.key}</pre></div>`}
      ${failure && html`<${Failure} error=${failure} />`}
      <form class="row" onSubmit=${create}>
        <label class="field"><span>Name</span><input class="input" maxlength="200" value=${name} onInput=${(event) => setName(event.target.value)} /></label>
        <label class="field"><span>Role</span><select class="select" value=${role} onChange=${(event) => setRole(event.target.value)}><option>read</option><option>feedback</option><option>admin</option></select></label>
        <button class="button" disabled=${!name.trim()}>Make a key</button>
      </form>
    </div>
  </section>`;
}

export const Settings = () => html`
  <${Head} title="Settings">Of this page, and of who may use the server.<//>
  <div class="two"><div class="stack"><${Look} /><${OwnKey} /></div><${Keys} /></div>`;
