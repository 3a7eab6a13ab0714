// Decisions: classes ticked, micrographs kept, picks changed. Saved as files where the server may write, else downloaded.
(function () {
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
  async function save(root, address, value, text) {
    const said = pick(root, 'said');
    if (root.dataset.changes !== '1') { download(root.dataset.file, text()); said.textContent = `${root.dataset.file} downloaded; the server is read-only.`; return false; }
    const answer = await fetch(address, {method: 'POST', headers: {'content-type': 'application/json'}, body: JSON.stringify(value)});
    const told = await answer.json();
    said.textContent = answer.ok ? told.said : told.problem;
    if (answer.ok && told.command) { root.querySelector('.command code').textContent = told.command; }
    root.dataset.saved = answer.ok ? '1' : '0';
    return answer.ok;
  }
  function classes(root) {
    const cards = JSON.parse(pick(root, 'cards').textContent), grid = pick(root, 'grid'), sheet = new Image();
    const address = `/jobs/${root.dataset.job}/classes`, on = new Set(cards.filter(c => c.ticked).map(c => c.number));
    function count() {
      const kept = cards.filter(c => on.has(c.number));
      pick(root, 'count').textContent = `${kept.length} of ${cards.length} classes, ${kept.reduce((n, c) => n + c.particles, 0)} particles`;
      grid.querySelectorAll('input').forEach(box => { box.checked = on.has(Number(box.value)); });
    }
    function lay() {
      const by = pick(root, 'sort').value, sign = by === 'particles' ? -1 : 1;
      const order = [...cards].sort((a, b) => sign * ((a[by] === null ? Infinity : a[by]) - (b[by] === null ? Infinity : b[by])) || a.number - b.number);
      const side = Number(pick(root, 'scale').value);
      grid.replaceChildren(...order.map(card => {
        const label = document.createElement('label'), canvas = document.createElement('canvas'), box = document.createElement('input');
        canvas.width = canvas.height = 96; canvas.style.width = canvas.style.height = side + 'px';
        const k = card.number - 1;
        if (sheet.complete && sheet.naturalWidth) { canvas.getContext('2d').drawImage(sheet, k % 10 * 96, Math.floor(k / 10) * 96, 96, 96, 0, 0, 96, 96); }
        box.type = 'checkbox'; box.value = card.number; box.checked = on.has(card.number);
        box.addEventListener('change', () => { if (box.checked) { on.add(card.number); } else { on.delete(card.number); } count(); });
        const words = document.createElement('span');
        words.textContent = ` ${card.number}: ${card.particles}, ${card.resolution_A === null ? 'no resolution' : card.resolution_A.toFixed(1) + ' Å'}`;
        label.append(canvas, box, words);
        if (card.left_out) { const why = document.createElement('small'); why.textContent = card.left_out; why.style.maxWidth = side + 'px'; label.append(why); }
        return label;
      }));
      count();
    }
    const set = test => { on.clear(); cards.filter(test).forEach(c => on.add(c.number)); count(); };
    pick(root, 'all').onclick = () => set(() => true);
    pick(root, 'none').onclick = () => set(() => false);
    pick(root, 'automatic').onclick = () => set(c => !c.left_out);
    pick(root, 'least').oninput = e => set(c => on.has(c.number) && c.particles >= Number(e.target.value));
    pick(root, 'sort').onchange = pick(root, 'scale').oninput = lay;
    pick(root, 'save').onclick = () => save(root, address, {classes: [...on]}, () => loop('selection', ['rlnClassNumber'], [...on].sort((a, b) => a - b).map(n => [n])));
    sheet.onload = lay; sheet.src = address + '.png';
    lay();
  }
  function inside(polygon, x, y) {
    let odd = false;
    for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
      const [xi, yi] = polygon[i], [xj, yj] = polygon[j];
      if ((yi > y) !== (yj > y) && x < (xj - xi) * (y - yi) / (yj - yi) + xi) { odd = !odd; }
    }
    return odd;
  }
  async function micrographs(root) {
    const address = `/jobs/${root.dataset.job}/micrographs`, table = await (await fetch(address + '.json')).json();
    const names = Object.keys(table.measures), kept = Uint8Array.from(table.kept, Number), past = [], canvas = pick(root, 'plot'), context = canvas.getContext('2d');
    const L = 60, B = 40, style = getComputedStyle(document.documentElement);
    let page = 0, order = null, line = [];
    const dark = matchMedia('(prefers-color-scheme: dark)'), colours = dark.matches ? ['#4aa8e0', '#ff8a3d'] : ['#0072b2', '#d55e00'];
    for (const one of ['x', 'y', 'measure']) { names.forEach((n, i) => pick(root, one).add(new Option(n, n, false, i === (one === 'y' ? Math.min(1, names.length - 1) : 0)))); }
    const range = values => { const good = values.filter(v => v !== null); const a = Math.min(...sample(good)), b = Math.max(...sample(good)); return a < b ? [a - 0.03 * (b - a), b + 0.03 * (b - a)] : [a - 1, a + 1]; };
    // Math.min of a million arguments overflows the stack.
    const sample = values => values.length < 50000 ? values : [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
    function places() {
      const xs = table.measures[pick(root, 'x').value], ys = table.measures[pick(root, 'y').value], [x0, x1] = range(xs), [y0, y1] = range(ys);
      const px = x => L + (x - x0) / (x1 - x0) * (canvas.width - L - 12), py = y => canvas.height - B - (y - y0) / (y1 - y0) * (canvas.height - B - 12);
      return {xs, ys, px, py, x0, x1, y0, y1};
    }
    function plot() {
      const p = places(), ink = style.getPropertyValue('--soft'), c = context;
      c.clearRect(0, 0, canvas.width, canvas.height);
      c.fillStyle = c.strokeStyle = ink; c.font = '13px system-ui, sans-serif'; c.textAlign = 'center';
      c.strokeRect(L, 12, canvas.width - L - 12, canvas.height - B - 12);
      for (let k = 0; k <= 4; k++) {
        const x = p.x0 + k / 4 * (p.x1 - p.x0), y = p.y0 + k / 4 * (p.y1 - p.y0);
        c.textAlign = k === 4 ? 'right' : 'center'; c.fillText(Number(x.toPrecision(3)), p.px(x), canvas.height - B + 16);
        c.textAlign = 'right'; c.fillText(Number(y.toPrecision(3)), L - 6, p.py(y) + 4);
      }
      for (const on of [0, 1]) {
        c.fillStyle = c.strokeStyle = on ? colours[0] : colours[1];
        for (let i = 0; i < kept.length; i++) {
          if (kept[i] !== on || p.xs[i] === null || p.ys[i] === null) { continue; }
          const x = p.px(p.xs[i]), y = p.py(p.ys[i]);
          // Two shapes: told apart without their colours.
          if (on) { c.fillRect(x - 2, y - 2, 4, 4); } else { c.beginPath(); c.moveTo(x - 3, y - 3); c.lineTo(x + 3, y + 3); c.moveTo(x + 3, y - 3); c.lineTo(x - 3, y + 3); c.stroke(); }
        }
      }
      if (line.length) { c.strokeStyle = ink; c.beginPath(); line.forEach(([x, y], i) => i ? c.lineTo(x, y) : c.moveTo(x, y)); c.stroke(); }
    }
    function rows() {
      const head = root.querySelector('.rows thead tr'), body = root.querySelector('.rows tbody'), size = 100, count = kept.reduce((a, b) => a + b, 0);
      if (!head.children.length) {
        ['micrograph', 'kept', ...names].forEach(name => {
          const cell = document.createElement('th'), button = document.createElement('button');
          button.type = 'button'; button.textContent = name; cell.scope = 'col'; cell.append(button); head.append(cell);
          button.onclick = () => {
            const values = name === 'micrograph' ? table.names : name === 'kept' ? Array.from(kept) : table.measures[name], up = cell.getAttribute('aria-sort') !== 'ascending';
            order = table.names.map((n, i) => i).sort((a, b) => {
              const u = values[a], v = values[b];
              if (u === null || v === null) { return (u === null) - (v === null); }
              return (up ? 1 : -1) * (u < v ? -1 : u > v ? 1 : 0);
            });
            [...head.children].forEach(other => other.removeAttribute('aria-sort'));
            cell.setAttribute('aria-sort', up ? 'ascending' : 'descending'); page = 0; rows();
          };
        });
      }
      order = order || table.names.map((n, i) => i);
      const pages = Math.max(1, Math.ceil(order.length / size));
      page = Math.max(0, Math.min(page, pages - 1));
      body.replaceChildren(...order.slice(page * size, (page + 1) * size).map(i => {
        const row = document.createElement('tr'), head = document.createElement('th'), cell = document.createElement('td'), box = document.createElement('input');
        head.scope = 'row'; head.textContent = table.names[i].split('/').pop(); head.title = table.names[i];
        box.type = 'checkbox'; box.checked = kept[i] === 1; box.setAttribute('aria-label', 'keep ' + table.names[i]);
        box.onchange = () => { change(() => { kept[i] = Number(box.checked); }); };
        cell.append(box); row.append(head, cell);
        names.forEach(name => { const td = document.createElement('td'), v = table.measures[name][i]; td.textContent = v === null ? '' : v; row.append(td); });
        return row;
      }));
      pick(root, 'page').textContent = `page ${page + 1} of ${pages}`;
      pick(root, 'count').textContent = `${count} of ${kept.length} micrographs kept`;
    }
    function change(how) { past.push(kept.slice()); if (past.length > 50) { past.shift(); } how(); plot(); rows(); }
    const at = e => { const box = canvas.getBoundingClientRect(); return [(e.clientX - box.left) / box.width * canvas.width, (e.clientY - box.top) / box.height * canvas.height]; };
    canvas.onpointerdown = e => { line = [at(e)]; canvas.setPointerCapture(e.pointerId); };
    canvas.onpointermove = e => { if (line.length) { line.push(at(e)); plot(); } };
    canvas.onpointerup = () => {
      const polygon = line, p = places(), mode = pick(root, 'mode').value;
      line = [];
      if (polygon.length < 3) { plot(); return; }
      change(() => { for (let i = 0; i < kept.length; i++) {
        const hit = p.xs[i] !== null && p.ys[i] !== null && inside(polygon, p.px(p.xs[i]), p.py(p.ys[i]));
        if (mode === 'keep') { kept[i] = Number(hit && kept[i]); } else if (hit) { kept[i] = mode === 'add' ? 1 : 0; }
      } });
    };
    pick(root, 'limit').onclick = () => change(() => {
      const values = table.measures[pick(root, 'measure').value], low = pick(root, 'low').valueAsNumber, high = pick(root, 'high').valueAsNumber;
      values.forEach((v, i) => { if (v === null || v < low || v > high) { kept[i] = 0; } });
    });
    pick(root, 'undo').onclick = () => { if (past.length) { kept.set(past.pop()); plot(); rows(); } };
    pick(root, 'all').onclick = () => change(() => kept.fill(1));
    pick(root, 'x').onchange = pick(root, 'y').onchange = plot;
    pick(root, 'before').onclick = () => { page -= 1; rows(); };
    pick(root, 'after').onclick = () => { page += 1; rows(); };
    pick(root, 'save').onclick = () => {
      const dropped = Array.from(kept.keys()).filter(i => !kept[i]);
      save(root, address, {dropped}, () => loop('', ['rlnMicrographName'], table.names.filter((n, i) => kept[i]).map(n => [quoted(n)])));
    };
    plot(); rows(); root.dataset.ready = '1';
  }
  async function picks(root) {
    const address = `/jobs/${root.dataset.job}/picks/${root.dataset.number}`, told = await (await fetch(address + '.json')).json();
    const canvas = pick(root, 'micrograph'), context = canvas.getContext('2d'), picture = new Image(), past = [];
    let list = told.xy.map((p, i) => ({x: p[0], y: p[1], merit: told.merit.length ? told.merit[i] : null})), radius = told.radius;
    const merits = list.map(p => p.merit).filter(m => m !== null), low = Math.min(...merits), high = Math.max(...merits), slider = pick(root, 'threshold');
    pick(root, 'size').value = radius; slider.disabled = !merits.length;
    // Picks by hand have no merit and stay whatever the slider says.
    const limit = () => merits.length ? low + (high - low) * slider.value / 1000 : -Infinity;
    const shown = () => list.filter(p => p.merit === null || p.merit >= limit() - 1e-9);
    const frame = told.step;
    function draw() {
      context.filter = `contrast(${pick(root, 'contrast').value}%) blur(${pick(root, 'smooth').value}px)`;
      context.drawImage(picture, 0, 0);
      context.filter = 'none'; context.lineWidth = 1.5; context.strokeStyle = '#39d353';
      const some = shown();
      for (const p of some) { context.beginPath(); context.arc((p.x + 0.5) / frame, (p.y + 0.5) / frame, radius / frame, 0, 7); context.stroke(); }
      pick(root, 'count').textContent = `${some.length} of ${list.length} picks`;
      pick(root, 'merit').textContent = merits.length ? limit().toPrecision(3) : '';
    }
    function change(how) { past.push(list); list = how(); draw(); }
    const at = e => { const box = canvas.getBoundingClientRect(); return [(e.clientX - box.left) / box.width * canvas.width * frame - 0.5, (e.clientY - box.top) / box.height * canvas.height * frame - 0.5]; };
    const near = (x, y) => shown().filter(p => Math.hypot(p.x - x, p.y - y) < radius);
    let brushing = false;
    canvas.onpointerdown = e => {
      const [x, y] = at(e), hit = near(x, y);
      if (pick(root, 'brush').checked) { brushing = true; canvas.setPointerCapture(e.pointerId); change(() => list.filter(p => !hit.includes(p))); return; }
      if (hit.length) { const best = hit.reduce((a, b) => Math.hypot(a.x - x, a.y - y) < Math.hypot(b.x - x, b.y - y) ? a : b); change(() => list.filter(p => p !== best)); }
      else if (x >= 0 && y >= 0 && x < told.shape[1] && y < told.shape[0]) { change(() => [...list, {x, y, merit: null}]); }
    };
    canvas.onpointermove = e => { if (brushing) { const hit = near(...at(e)); if (hit.length) { list = list.filter(p => !hit.includes(p)); draw(); } } };
    canvas.onpointerup = () => { brushing = false; };
    slider.oninput = pick(root, 'contrast').oninput = pick(root, 'smooth').oninput = draw;
    pick(root, 'size').oninput = e => { radius = Number(e.target.value); draw(); };
    pick(root, 'undo').onclick = () => { if (past.length) { list = past.pop(); draw(); } };
    pick(root, 'save').onclick = () => {
      const some = shown(), xy = some.map(p => [Number(p.x.toFixed(3)), Number(p.y.toFixed(3))]);
      // One value for each or none: a pick by hand counts as the best of its micrograph.
      const merit = merits.length ? some.map(p => p.merit === null ? high : p.merit) : [];
      save(root, address, {xy, merit}, () => loop('', ['rlnCoordinateX', 'rlnCoordinateY', ...(merit.length ? ['rlnAutopickFigureOfMerit'] : [])], xy.map((p, i) => merit.length ? [...p, merit[i]] : p)));
    };
    picture.onload = () => { canvas.width = picture.naturalWidth; canvas.height = picture.naturalHeight; draw(); root.dataset.ready = '1'; };
    picture.src = address + '.png';
  }
  for (const [name, make] of Object.entries({classes, micrographs, picks})) {
    const root = document.getElementById(name);
    if (root) { make(root); }
  }
})();
