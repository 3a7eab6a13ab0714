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
  // Columns to choose from: for both axes of a plot, and for a limit; "words" says what each is.
  function offer(root, names, words = name => name, fields = ['x', 'y', 'measure']) {
    for (const one of fields) {
      pick(root, one).replaceChildren(...names.map((n, i) => new Option(words(n), n, false, i === (one === 'y' ? Math.min(1, names.length - 1) : 0))));
    }
  }
  // Limits as they are entered, and null, with the reason on the page, where they choose nothing.
  function limits(root) {
    const low = pick(root, 'low').valueAsNumber, high = pick(root, 'high').valueAsNumber;
    const none = Number.isNaN(low) && Number.isNaN(high);
    pick(root, 'said').textContent = none ? 'Enter a lower limit, an upper limit or both.' : low > high ? 'The lower limit is above the upper one.' : '';
    if (none || low > high) { return null; }
    return {...(Number.isNaN(low) ? {} : {low}), ...(Number.isNaN(high) ? {} : {high})};
  }
  // Headings that sort: each is a button, and says which way its column is sorted.
  function headings(root, names, sorted, words = name => name) {
    const head = root.querySelector('.rows thead tr');
    head.replaceChildren(...names.map(name => {
      const cell = document.createElement('th'), button = document.createElement('button');
      button.type = 'button'; button.textContent = words(name); cell.scope = 'col'; cell.append(button);
      if (words(name) !== name) { cell.title = name; }
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
    const context = canvas.getContext('2d'), style = getComputedStyle(document.documentElement), wide = text => context.measureText(text).width;
    const dark = matchMedia('(prefers-color-scheme: dark)').matches, colours = dark ? ['#4aa8e0', '#ff8a3d'] : ['#0072b2', '#d55e00'];
    const font = unit => `${12.5 * unit}px system-ui, sans-serif`, said = v => String(Number(v.toPrecision(6)));
    let line = [], drawing = false;
    // In pixels of the screen: words and points have one size however wide the plot is.
    function places() {
      const unit = Math.min(devicePixelRatio || 1, 2), [cw, ch] = [canvas.clientWidth, canvas.clientHeight].map(v => Math.round(v * unit));
      if (cw && ch && (canvas.width !== cw || canvas.height !== ch)) { canvas.width = cw; canvas.height = ch; }
      const {xs, ys} = data(), [x0, x1] = span(xs), [y0, y1] = span(ys), [T, B] = [24 * unit, 44 * unit];
      context.font = font(unit);
      const ticks = window.verglasTicks(y0, y1, Math.max(2, canvas.height / unit / 70)), L = Math.max(...ticks.map(v => wide(said(v))), 20 * unit) + 12 * unit;
      const w = canvas.width - L - 12 * unit, h = canvas.height - B - T;
      return {xs, ys, x0, x1, y0, y1, unit, L, T, w, h, ticks, px: x => L + (x - x0) / (x1 - x0) * w, py: y => T + h - (y - y0) / (y1 - y0) * h,
        at: ([u, v]) => [x0 + (u - L) / w * (x1 - x0), y0 + (T + h - v) / h * (y1 - y0)]};
    }
    function plot() {
      const p = places(), ink = style.getPropertyValue('--soft'), c = context, {kept, names} = data(), {unit, L, T, w, h} = p, low = T + h;
      c.clearRect(0, 0, canvas.width, canvas.height);
      c.fillStyle = ink; c.font = font(unit); c.lineWidth = unit;
      c.strokeStyle = style.getPropertyValue('--line');
      for (const y of p.ticks) {
        c.textAlign = 'right'; c.fillText(said(y), L - 6 * unit, p.py(y) + 4 * unit);
        c.beginPath(); c.moveTo(L, p.py(y)); c.lineTo(L + w, p.py(y)); c.stroke();
      }
      for (const x of window.verglasTicks(p.x0, p.x1, Math.max(2, w / unit / 110))) {
        const words = said(x), half = wide(words) / 2, at = p.px(x);
        c.textAlign = 'center'; c.fillText(words, Math.min(at, canvas.width - half), low + 16 * unit);
        c.beginPath(); c.moveTo(at, T); c.lineTo(at, low); c.stroke();
      }
      c.strokeStyle = ink; c.strokeRect(L, T, w, h);
      c.textAlign = 'center'; c.fillText(names[0], L + w / 2, low + 36 * unit);
      c.textAlign = 'left'; c.fillText(names[1], Math.min(L, canvas.width - wide(names[1])), T - 9 * unit);
      const size = (kept.length > 5000 ? 2 : 5) * unit, arm = 3 * unit;
      for (const on of [0, 1]) {
        c.fillStyle = c.strokeStyle = on ? colours[0] : colours[1];
        for (let i = 0; i < kept.length; i++) {
          if (kept[i] !== on || p.xs[i] === null || p.ys[i] === null) { continue; }
          const x = p.px(p.xs[i]), y = p.py(p.ys[i]);
          // Two shapes: told apart without their colours.
          if (on) { c.fillRect(x - size / 2, y - size / 2, size, size); } else { c.beginPath(); c.moveTo(x - arm, y - arm); c.lineTo(x + arm, y + arm); c.moveTo(x + arm, y - arm); c.lineTo(x - arm, y + arm); c.stroke(); }
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
    let wide_was = canvas.clientWidth;
    new ResizeObserver(() => { if (canvas.clientWidth !== wide_was) { wide_was = canvas.clientWidth; line = []; drawing = false; plot(); } }).observe(canvas);
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
  // Pages of a table: nothing to turn where there is one.
  function turn(root, page, pages) {
    const before = pick(root, 'before'), after = pick(root, 'after');
    pick(root, 'page').textContent = `page ${page + 1} of ${pages}`;
    before.disabled = page === 0; after.disabled = page + 1 >= pages;
    before.parentNode.hidden = pages < 2;
  }
  return {pick, download, loop, quoted, save, drafts, inside, offer, limits, headings, place, scatter, cross, turn};
})();
