// Particles by their values: lines drawn round points and limits along histograms, counted by the server of all of them.
(function () {
  'use strict';
  const {pick, save, drafts, offer, limits, headings, scatter, turn} = window.verglasDecide, root = document.getElementById('particles');
  if (!root) { return; }
  const address = `/jobs/${root.dataset.job}/particles`, H = 110, W = 300, CORNERS = 80;
  const number = v => Number(v.toPrecision(4));
  const named = columns => { const words = new Map(columns.map(c => [c.name, c.label])); return name => words.get(name) || name; };
  async function ask(path) {
    const answer = await fetch(path), told = await answer.json();
    if (!answer.ok) { throw new Error(told.problem); }
    return told;
  }
  const controls = () => [...root.querySelectorAll('.undo, .all, .save, .limit, .before, .after')];
  // A large file is read beside the server when it is first looked at: the page shows a sample, and asks again.
  async function numbers(glance) {
    let shown = false;
    for (;;) {
      const told = await ask(address + '.json'), sample = Boolean(told.columns && told.columns.length);
      root.classList.toggle('waiting', Boolean(told.reading) && !sample);
      controls().forEach(one => { one.disabled = Boolean(told.reading); });
      if (!told.reading) { return told; }
      const what = sample ? `${told.total} particles: ${told.sampled} of them are shown, and can be chosen when all are read` : 'its numbers appear here when they are read';
      pick(root, 'count').textContent = `${told.reading}; ${what}.`;
      if (sample && !shown) { shown = true; glance(told); }
      await new Promise(resolve => setTimeout(resolve, 500));
    }
  }
  // Points and histograms of some rows of a file that is being read; nothing of them is chosen.
  function glance(told) {
    const names = told.columns.map(c => c.name), x = pick(root, 'x'), y = pick(root, 'y'), words = named(told.columns);
    offer(root, names, words, ['x', 'y']);
    const plot = scatter(pick(root, 'plot'), () => ({xs: told.values[x.value], ys: told.values[y.value], kept: told.values[x.value].map(() => 1), names: [words(x.value), words(y.value)]}), () => plot());
    x.onchange = y.onchange = plot;
    plot();
    pick(root, 'histograms').replaceChildren(...told.columns.map(column => {
      const figure = document.createElement('figure'), area = document.createElement('canvas'), under = document.createElement('figcaption');
      area.width = W; area.height = H; area.setAttribute('role', 'img'); area.setAttribute('aria-label', `Histogram of a sample of ${column.label}`);
      under.textContent = `${column.label}: ${number(column.low)} to ${number(column.high)}`; under.title = column.name;
      figure.append(area, under);
      drawBars(figure, column, column.counts);
      return figure;
    }));
    root.dataset.glance = '1';
  }
  function drawBars(figure, column, chosen) {
    const c = figure.querySelector('canvas').getContext('2d'), top = Math.max(...column.counts, 1), n = column.counts.length, style = getComputedStyle(document.documentElement);
    c.clearRect(0, 0, W, H);
    for (const [counts, colour] of [[column.counts, style.getPropertyValue('--line')], [chosen, style.getPropertyValue('--accent')]]) {
      c.fillStyle = colour;
      counts.forEach((v, i) => { const h = v / top * (H - 4); c.fillRect(i * W / n, H - h, W / n - 0.5, h); });
    }
  }
  async function main() {
    const told = await numbers(glance), was = [pick(root, 'x').value, pick(root, 'y').value], names = told.columns.map(c => c.name), canvas = pick(root, 'plot');
    let steps = told.steps, points = {x: [], y: []}, chosen = null, sort = '', way = 'up', page = 0, keep = () => {}, asked = 0;
    if (!names.length) { pick(root, 'count').textContent = 'No column of these particles varies.'; return; }
    const said = named(told.columns);
    pick(root, 'histograms').replaceChildren();
    offer(root, names, said);
    ['x', 'y'].forEach((one, i) => { if (names.includes(was[i])) { pick(root, one).value = was[i]; } }); // as the sample was looked at
    root.dataset.seen = told.seen;
    headings(root, ['particle', ...names], (name, up) => { way = up ? 'up' : 'down'; sort = name; page = 0; choose(); }, said);
    const x = () => pick(root, 'x').value, y = () => pick(root, 'y').value;
    const plot = scatter(canvas, () => ({xs: points.x, ys: points.y, kept: chosen ? chosen.sample : points.x.map(() => 1), names: [said(x()), said(y())]}), (polygon, p) => {
      // Fewer corners than a hand leaves: the steps travel in an address.
      const some = polygon.filter((one, i) => i % Math.ceil(polygon.length / CORNERS) === 0);
      add({action: pick(root, 'mode').value, x: x(), y: y(), corners: some.map(one => p.at(one).map(v => Number(v.toPrecision(6))))});
    });
    const words = {keep: 'keep only', drop: 'drop', add: 'add'};
    const told_step = s => s.y ? `${words[s.action]} what lies inside a line in ${said(s.x)} and ${said(s.y)}` : `${words[s.action]} ${said(s.x)} from ${s.low === undefined ? 'any' : number(s.low)} to ${s.high === undefined ? 'any' : number(s.high)}`;
    function add(step) { steps = [...steps, step]; changed(); }
    function changed() { page = 0; keep(steps); choose(); }
    async function choose() {
      const mine = ++asked, query = new URLSearchParams({steps: JSON.stringify(steps), sort, way, page});
      try {
        const answer = await ask(`${address}/chosen.json?${query}`);
        if (mine !== asked) { return; } // another has been asked since
        chosen = answer; page = answer.page;
      } catch (error) { pick(root, 'said').textContent = error.message; return; }
      pick(root, 'count').textContent = `${chosen.kept} of ${told.total} particles kept`;
      pick(root, 'steps').replaceChildren(...steps.map(one => { const item = document.createElement('li'); item.textContent = told_step(one); return item; }));
      plot(); histograms(); rows();
      root.dataset.ready = String(mine);
    }
    async function move() { points = await ask(`${address}/points.json?${new URLSearchParams({x: x(), y: y()})}`); plot(); }
    function histograms() {
      const all = pick(root, 'histograms');
      if (!all.children.length) { told.columns.forEach(column => {
        const figure = document.createElement('figure'), area = document.createElement('canvas'), under = document.createElement('figcaption');
        area.width = W; area.height = H; area.tabIndex = 0; area.setAttribute('role', 'img');
        area.setAttribute('aria-label', `Histogram of ${column.label}, ${number(column.low)} to ${number(column.high)}: drag to choose a range; left and right arrow keys move a mark, the space bar begins a range there, Enter ends it`);
        under.textContent = `${column.label}: ${number(column.low)} to ${number(column.high)}`; under.title = column.name;
        figure.append(area, under); all.append(figure);
        ranges(figure, column);
      }); }
      told.columns.forEach((column, k) => { all.children[k].redraw(); });
    }
    // A range along a histogram, by a pointer or by keys; both are places from 0 to 1 until it is chosen.
    function ranges(figure, column) {
      const area = figure.querySelector('canvas'), under = figure.querySelector('figcaption'), plain = under.textContent, value = share => column.low + share * (column.high - column.low);
      let from = null, to = null, dragged = false;
      figure.redraw = () => {
        drawBars(figure, column, chosen && chosen.counts[column.name] || column.counts);
        under.textContent = to === null ? plain : from === null ? `${column.label}: ${number(value(to))}` : `${column.label}: ${number(value(Math.min(from, to)))} to ${number(value(Math.max(from, to)))} is chosen`;
        if (to === null) { return; }
        const c = area.getContext('2d'), style = getComputedStyle(document.documentElement), start = from === null ? to : from;
        c.globalAlpha = 0.3; c.fillStyle = style.getPropertyValue('--soft'); c.fillRect(Math.min(start, to) * W, 0, Math.abs(to - start) * W, H);
        c.globalAlpha = 1; c.fillStyle = style.getPropertyValue('--ink'); c.fillRect(Math.min(to * W, W - 2), 0, 2, H);
      };
      function none() { from = to = null; dragged = false; figure.redraw(); }
      function take() {
        const [a, b] = [from, to].sort((u, v) => u - v), end = 0.01;
        none();
        if (a === null || !(b > a)) { return; }
        // The outermost bins hold what lies beyond them: a range that reaches an end has no limit there.
        const step = {action: pick(root, 'mode').value, x: column.name};
        if (a > end) { step.low = Number(value(a).toPrecision(6)); }
        if (b < 1 - end) { step.high = Number(value(b).toPrecision(6)); }
        add(step);
      }
      const at = e => { const box = area.getBoundingClientRect(); return Math.min(Math.max((e.clientX - box.left) / box.width, 0), 1); };
      area.onpointerdown = e => { from = to = at(e); dragged = true; area.setPointerCapture(e.pointerId); };
      area.onpointermove = e => { if (dragged) { to = at(e); figure.redraw(); } };
      area.onpointerup = () => { if (dragged) { take(); } };
      area.onpointercancel = area.onblur = none;
      area.onkeydown = e => {
        const way = {ArrowLeft: -1, ArrowRight: 1}[e.key], small = e.shiftKey ? 0.2 : 1;
        if (way) { to = Math.min(Math.max((to === null ? (way > 0 ? 0 : 1) : to + way * small / column.counts.length), 0), 1); }
        else if (e.key === 'Home' || e.key === 'End') { to = e.key === 'Home' ? 0 : 1; }
        else if (e.key === ' ' && to !== null) { from = to; }
        else if (e.key === 'Enter' && from !== null && to !== null) { take(); e.preventDefault(); return; }
        else if (e.key === 'Escape' && to !== null) { none(); return; }
        else { return; }
        e.preventDefault(); figure.redraw();
      };
    }
    function rows() {
      root.querySelector('.rows tbody').replaceChildren(...chosen.rows.map(values => {
        const row = document.createElement('tr');
        values.forEach((v, i) => { const cell = document.createElement(i ? 'td' : 'th'); if (!i) { cell.scope = 'row'; } cell.textContent = v === null ? '' : v; row.append(cell); });
        return row;
      }));
      turn(root, chosen.page, chosen.pages);
    }
    pick(root, 'x').onchange = pick(root, 'y').onchange = move;
    pick(root, 'undo').onclick = () => { if (steps.length) { steps = steps.slice(0, -1); changed(); } };
    pick(root, 'all').onclick = () => { steps = []; changed(); };
    pick(root, 'before').onclick = () => { page = Math.max(0, page - 1); choose(); };
    pick(root, 'after').onclick = () => { page += 1; choose(); };
    pick(root, 'limit').onclick = () => {
      const found = limits(root);
      if (found) { add({action: 'keep', x: pick(root, 'measure').value, ...found}); }
    };
    pick(root, 'save').onclick = () => save(root, address, {steps}, () => JSON.stringify({particles: 'particles.star', of: told.total, kept: chosen.kept, steps}, null, 1));
    await move();
    keep = await drafts(root, 'particles', String(told.total), value => { steps = value; });
    await choose();
  }
  main().catch(error => { pick(root, 'count').textContent = error.message; });
})();
