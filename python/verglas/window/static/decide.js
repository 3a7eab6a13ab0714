// What all pages of decisions need: saving, downloads, drafts that outlive the server and the page, lines round points.
window.verglasDecide = (function () {
  'use strict';
  const pick = (root, name) => root.querySelector('.' + name);
  function download(name, text) {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([text], {type: 'text/plain'}));
    link.download = name; link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
  const loop = (name, labels, rows) => `\ndata_${name}\n\nloop_\n${labels.map((l, i) => `_${l} #${i + 1}\n`).join('')}${rows.map(r => r.join('\t') + '\n').join('')}\n`;
  const quoted = word => /\s/.test(word) ? `"${word}"` : word;
  const json = {'content-type': 'application/json'};
  async function post(address, value) {
    const answer = await fetch(address, {method: 'POST', headers: json, body: JSON.stringify(value)});
    return {ok: answer.ok, told: await answer.json()};
  }
  async function save(root, address, value, text) {
    const said = pick(root, 'said');
    if (root.dataset.changes !== '1') { download(root.dataset.file, text()); said.textContent = `${root.dataset.file} downloaded; the server is read-only.`; return false; }
    let done;
    try { done = await post(address, {...value, seen: root.dataset.seen}); } catch (error) { said.textContent = 'The server does not answer. What was changed is kept here and can be saved when it is back.'; return false; }
    said.textContent = done.ok ? done.told.said : done.told.problem;
    if (done.ok && done.told.command) { window.verglasCommand(root.querySelector('.command'), done.told.command); }
    if (done.ok && 'again' in done.told) { pick(root, 'again').hidden = !done.told.again; window.verglasCommand(root.querySelector('.again .command'), done.told.again); }
    root.dataset.saved = done.ok ? '1' : '0';
    if (done.ok && done.told.seen) { root.dataset.seen = done.told.seen; }
    if (done.ok && root.forget) { root.forget(); }
    // Another page that saved has taken the draft away with its own: what was changed here is kept once more.
    if (!done.ok && root.again) { root.again(); }
    return done.ok;
  }
  // What is changed and not saved goes to the server as it is changed, and to this browser: whichever of them ends, it is
  // there when the page is opened again. "base" says what was changed: a draft of something else is not given back.
  async function drafts(root, name, base, restore) {
    const address = `/jobs/${root.dataset.job}/draft/${name}`, key = 'verglas.draft.' + address, writes = root.dataset.changes === '1';
    let mine = null, theirs = null, waiting = 0, last = null;
    try { mine = JSON.parse(localStorage.getItem(key)); } catch (error) { console.info('drafts are not kept here: ' + error.message); }
    if (writes) { const answer = await fetch(address); if (answer.ok) { theirs = await answer.json(); } }
    const found = [mine, theirs].filter(one => one && one.base === base).sort((a, b) => b.time - a.time)[0];
    async function send() {
      waiting = 0;
      const value = last;
      try { const done = await post(address, value); root.dataset.draft = done.ok && last === value ? 'kept' : 'waiting'; } catch (error) { root.dataset.draft = 'waiting'; waiting = setTimeout(send, 1500); }
    }
    function keep(value) {
      last = value === null ? {base} : {base, time: Date.now(), value};
      try { if (value === null) { localStorage.removeItem(key); } else { localStorage.setItem(key, JSON.stringify(last)); } } catch (error) { console.info('drafts are not kept here: ' + error.message); }
      if (writes) { root.dataset.draft = 'waiting'; clearTimeout(waiting); waiting = setTimeout(send, 250); }
    }
    root.forget = () => keep(null);
    root.again = () => { if (last && 'value' in last) { keep(last.value); } };
    if (found) {
      restore(found.value);
      const said = pick(root, 'said'), button = document.createElement('button');
      said.textContent = `Changes of ${new Date(found.time).toLocaleString()} that were not saved are back. `;
      button.type = 'button'; button.textContent = 'Forget them'; said.append(button);
      button.onclick = async () => { root.forget(); if (writes) { clearTimeout(waiting); await send(); } location.reload(); };
    }
    if (!found && theirs && theirs.base !== undefined) { pick(root, 'said').textContent = `Changes of ${new Date(theirs.time).toLocaleString()} that were not saved are of what the job has replaced since: they are kept in .window_drafts and not shown.`; }
    return keep;
  }
  function inside(polygon, x, y) {
    let odd = false;
    for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
      const [xi, yi] = polygon[i], [xj, yj] = polygon[j];
      if ((yi > y) !== (yj > y) && x < (xj - xi) * (y - yi) / (yj - yi) + xi) { odd = !odd; }
    }
    return odd;
  }
  const span = values => {
    let a = Infinity, b = -Infinity;
    for (const v of values) { if (v !== null) { a = Math.min(a, v); b = Math.max(b, v); } }
    return a < b ? [a - 0.03 * (b - a), b + 0.03 * (b - a)] : [a - 1, a + 1];
  };
  // Columns to choose from: for both axes of a plot, and for a limit.
  function offer(root, names) {
    for (const one of ['x', 'y', 'measure']) { names.forEach((n, i) => pick(root, one).add(new Option(n, n, false, i === (one === 'y' ? Math.min(1, names.length - 1) : 0)))); }
  }
  // Headings that sort: each is a button, and says which way its column is sorted.
  function headings(root, names, sorted) {
    const head = root.querySelector('.rows thead tr');
    head.replaceChildren(...names.map(name => {
      const cell = document.createElement('th'), button = document.createElement('button');
      button.type = 'button'; button.textContent = name; cell.scope = 'col'; cell.append(button);
      button.onclick = () => {
        const up = cell.getAttribute('aria-sort') !== 'ascending';
        [...head.children].forEach(other => other.removeAttribute('aria-sort'));
        cell.setAttribute('aria-sort', up ? 'ascending' : 'descending');
        sorted(name, up);
      };
      return cell;
    }));
  }
  // Where on a canvas an event is, in its own pixels.
  function place(canvas, e) {
    const box = canvas.getBoundingClientRect();
    return [(e.clientX - box.left) / box.width * canvas.width, (e.clientY - box.top) / box.height * canvas.height];
  }
  // A cross on a canvas for who has no pointer: arrow keys move it (with shift by little), "act" is told the other keys.
  function cross(canvas, draw, act) {
    let at = null;
    canvas.addEventListener('keydown', e => {
      const step = Math.max(1, Math.round((e.shiftKey ? 0.004 : 0.02) * canvas.width));
      const way = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[e.key];
      if (way) {
        at = at || [canvas.width / 2, canvas.height / 2];
        at = [Math.min(Math.max(at[0] + step * way[0], 0), canvas.width - 1), Math.min(Math.max(at[1] + step * way[1], 0), canvas.height - 1)];
      } else if (!act(e.key, at)) { return; }
      e.preventDefault(); draw();
    });
    canvas.addEventListener('blur', () => { if (at) { at = null; draw(); } });
    canvas.addEventListener('pointerdown', () => { at = null; });
    return colour => {
      if (!at) { return; }
      const c = canvas.getContext('2d'), [x, y] = at, r = 0.014 * canvas.width;
      c.strokeStyle = colour; c.lineWidth = 2; c.beginPath();
      c.moveTo(x - r, y); c.lineTo(x + r, y); c.moveTo(x, y - r); c.lineTo(x, y + r); c.stroke(); c.lineWidth = 1;
    };
  }
  // Points of two values on a canvas, those kept and those dropped; a line drawn round some is handed to "drawn".
  function scatter(canvas, data, drawn) {
    const context = canvas.getContext('2d'), L = 60, B = 40, style = getComputedStyle(document.documentElement);
    const dark = matchMedia('(prefers-color-scheme: dark)').matches, colours = dark ? ['#4aa8e0', '#ff8a3d'] : ['#0072b2', '#d55e00'];
    let line = [], drawing = false;
    function places() {
      const {xs, ys} = data(), [x0, x1] = span(xs), [y0, y1] = span(ys), w = canvas.width - L - 12, h = canvas.height - B - 12;
      return {xs, ys, x0, x1, y0, y1, px: x => L + (x - x0) / (x1 - x0) * w, py: y => canvas.height - B - (y - y0) / (y1 - y0) * h,
        at: ([u, v]) => [x0 + (u - L) / w * (x1 - x0), y0 + (canvas.height - B - v) / h * (y1 - y0)]};
    }
    function plot() {
      const p = places(), ink = style.getPropertyValue('--soft'), c = context, kept = data().kept;
      c.clearRect(0, 0, canvas.width, canvas.height);
      c.fillStyle = c.strokeStyle = ink; c.font = '13px system-ui, sans-serif'; c.textAlign = 'center';
      c.strokeRect(L, 12, canvas.width - L - 12, canvas.height - B - 12);
      for (let k = 0; k <= 4; k++) {
        const x = p.x0 + k / 4 * (p.x1 - p.x0), y = p.y0 + k / 4 * (p.y1 - p.y0);
        c.textAlign = k === 4 ? 'right' : 'center'; c.fillText(Number(x.toPrecision(3)), p.px(x), canvas.height - B + 16);
        c.textAlign = 'right'; c.fillText(Number(y.toPrecision(3)), L - 6, p.py(y) + 4);
      }
      const size = kept.length > 5000 ? 2 : 4;
      for (const on of [0, 1]) {
        c.fillStyle = c.strokeStyle = on ? colours[0] : colours[1];
        for (let i = 0; i < kept.length; i++) {
          if (kept[i] !== on || p.xs[i] === null || p.ys[i] === null) { continue; }
          const x = p.px(p.xs[i]), y = p.py(p.ys[i]);
          // Two shapes: told apart without their colours.
          if (on) { c.fillRect(x - size / 2, y - size / 2, size, size); } else { c.beginPath(); c.moveTo(x - 3, y - 3); c.lineTo(x + 3, y + 3); c.moveTo(x + 3, y - 3); c.lineTo(x - 3, y + 3); c.stroke(); }
        }
      }
      if (line.length) { c.strokeStyle = ink; c.beginPath(); line.forEach(([x, y], i) => i ? c.lineTo(x, y) : c.moveTo(x, y)); c.stroke(); }
      marked(style.getPropertyValue('--accent'));
    }
    const marked = cross(canvas, plot, (key, spot) => {
      if (key === ' ' && spot) { line = [...line, spot]; return true; }
      if (key === 'Escape' && line.length) { line = []; return true; }
      if (key !== 'Enter' || line.length < 3) { return false; }
      const polygon = line;
      line = [];
      drawn(polygon, places());
      return true;
    });
    const at = e => place(canvas, e);
    canvas.onpointerdown = e => { line = [at(e)]; drawing = true; canvas.setPointerCapture(e.pointerId); };
    canvas.onpointermove = e => { if (drawing) { line.push(at(e)); plot(); } };
    canvas.onpointerup = () => {
      if (!drawing) { return; }
      const polygon = line, p = places();
      line = []; drawing = false;
      if (polygon.length < 3) { plot(); return; }
      drawn(polygon, p);
    };
    return plot;
  }
  return {pick, download, loop, quoted, save, drafts, inside, offer, headings, place, scatter, cross};
})();
