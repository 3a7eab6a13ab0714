// Decisions on classes and micrographs: saved as files where the server may write, else downloaded.
(function () {
  'use strict';
  const {pick, save, loop, quoted, drafts, inside, offer, limits, headings, scatter, turn} = window.verglasDecide;
  async function classes(root) {
    const cards = JSON.parse(pick(root, 'cards').textContent), grid = pick(root, 'grid'), sheet = new Image();
    const address = `/jobs/${root.dataset.job}/classes`, on = new Set(cards.filter(c => c.ticked).map(c => c.number));
    let keep = () => {};
    function count() {
      const kept = cards.filter(c => on.has(c.number));
      pick(root, 'count').textContent = `${kept.length} of ${cards.length} classes, ${kept.reduce((n, c) => n + c.particles, 0)} particles`;
      grid.querySelectorAll('input').forEach(box => { box.checked = on.has(Number(box.value)); });
    }
    function changed() { count(); keep([...on]); }
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
        box.addEventListener('change', () => { if (box.checked) { on.add(card.number); } else { on.delete(card.number); } changed(); });
        const words = document.createElement('span');
        words.textContent = ` ${card.number}: ${card.particles}, ${card.resolution_A === null ? 'no resolution' : card.resolution_A.toFixed(1) + ' Å'}`;
        label.append(canvas, box, words);
        if (card.left_out) { const why = document.createElement('small'); why.textContent = card.left_out; why.style.maxWidth = side + 'px'; label.append(why); }
        return label;
      }));
      grid.removeAttribute('aria-busy');
      count();
    }
    const set = test => { const some = cards.filter(test); on.clear(); some.forEach(c => on.add(c.number)); changed(); };
    pick(root, 'all').onclick = () => set(() => true);
    pick(root, 'none').onclick = () => set(() => false);
    pick(root, 'automatic').onclick = () => set(c => !c.left_out);
    pick(root, 'least').oninput = e => set(c => on.has(c.number) && c.particles >= Number(e.target.value));
    pick(root, 'sort').onchange = pick(root, 'scale').oninput = lay;
    pick(root, 'save').onclick = () => save(root, address, {classes: [...on]}, () => loop('selection', ['rlnClassNumber'], [...on].sort((a, b) => a - b).map(n => [n])));
    sheet.onload = lay; sheet.src = address + '.png';
    keep = await drafts(root, 'classes', cards.map(c => c.particles).join(' '), numbers => { on.clear(); numbers.forEach(n => on.add(n)); });
    lay(); root.dataset.ready = '1';
  }
  async function micrographs(root) {
    const address = `/jobs/${root.dataset.job}/micrographs`, table = await (await fetch(address + '.json')).json();
    const names = Object.keys(table.measures), kept = Uint8Array.from(table.kept, Number), past = [], canvas = pick(root, 'plot');
    let page = 0, order = table.names.map((n, i) => i);
    root.dataset.seen = table.seen;
    offer(root, names); headings(root, ['kept', 'micrograph', ...names], sorted);
    const plot = scatter(canvas, () => ({xs: table.measures[pick(root, 'x').value], ys: table.measures[pick(root, 'y').value], kept, names: [pick(root, 'x').value, pick(root, 'y').value]}), (polygon, p) => {
      const mode = pick(root, 'mode').value;
      change(() => { for (let i = 0; i < kept.length; i++) {
        const hit = p.xs[i] !== null && p.ys[i] !== null && inside(polygon, p.px(p.xs[i]), p.py(p.ys[i]));
        if (mode === 'keep') { kept[i] = Number(hit && kept[i]); } else if (hit) { kept[i] = mode === 'add' ? 1 : 0; }
      } });
    });
    function sorted(name, up) {
      const values = name === 'micrograph' ? table.names : name === 'kept' ? Array.from(kept) : table.measures[name];
      order = table.names.map((n, i) => i).sort((a, b) => {
        const u = values[a], v = values[b];
        if (u === null || v === null) { return (u === null) - (v === null); }
        return (up ? 1 : -1) * (u < v ? -1 : u > v ? 1 : 0);
      });
      page = 0; rows();
    }
    function rows() {
      const body = root.querySelector('.rows tbody'), size = 100, count = kept.reduce((a, b) => a + b, 0);
      const pages = Math.max(1, Math.ceil(order.length / size));
      page = Math.max(0, Math.min(page, pages - 1));
      body.replaceChildren(...order.slice(page * size, (page + 1) * size).map(i => {
        const row = document.createElement('tr'), head = document.createElement('th'), cell = document.createElement('td'), box = document.createElement('input');
        head.scope = 'row'; head.textContent = table.names[i].split('/').pop(); head.title = table.names[i];
        box.type = 'checkbox'; box.checked = kept[i] === 1; box.setAttribute('aria-label', 'keep ' + table.names[i]);
        box.onchange = () => { change(() => { kept[i] = Number(box.checked); }); };
        cell.append(box); row.append(cell, head);
        names.forEach(name => { const td = document.createElement('td'), v = table.measures[name][i]; td.textContent = v === null ? '' : v; row.append(td); });
        return row;
      }));
      turn(root, page, pages);
      pick(root, 'count').textContent = `${count} of ${kept.length} micrographs kept`;
    }
    let keep = () => {};
    const dropped = () => Array.from(kept.keys()).filter(i => !kept[i]);
    function show() { plot(); rows(); keep(dropped().map(i => table.names[i])); }
    function change(how) { past.push(kept.slice()); if (past.length > 50) { past.shift(); } how(); show(); }
    pick(root, 'limit').onclick = () => {
      const values = table.measures[pick(root, 'measure').value], chosen = limits(root);
      if (chosen) { change(() => values.forEach((v, i) => { if (v === null || v < chosen.low || v > chosen.high) { kept[i] = 0; } })); }
    };
    pick(root, 'undo').onclick = () => { if (past.length) { kept.set(past.pop()); show(); } };
    pick(root, 'all').onclick = () => change(() => kept.fill(1));
    pick(root, 'x').onchange = pick(root, 'y').onchange = plot;
    pick(root, 'before').onclick = () => { page -= 1; rows(); };
    pick(root, 'after').onclick = () => { page += 1; rows(); };
    pick(root, 'save').onclick = () => save(root, address, {dropped: dropped().map(i => table.names[i])}, () => loop('', ['rlnMicrographName'], table.names.filter((n, i) => kept[i]).map(n => [quoted(n)])));
    // By name: rows move when micrographs come while the page is open.
    keep = await drafts(root, 'micrographs', 'names', out => { const gone = new Set(out); table.names.forEach((n, i) => { kept[i] = Number(!gone.has(n)); }); });
    plot(); rows(); root.dataset.ready = '1';
  }
  for (const [name, make] of Object.entries({classes, micrographs})) {
    const root = document.getElementById(name);
    if (root) { make(root); }
  }
})();
