// Draws every figure.chart of a page as SVG from the JSON in it. Hover or arrow keys: values; names: curves on and off.
(function () {
  'use strict';
  const sample = document.createElement('div');
  sample.innerHTML = '<svg></svg>'; // a page without any address in it is seen to fetch nothing
  const NS = sample.firstChild.namespaceURI, W = 640, H = 300, L = 56, R = 14, T = 12, B = 40;
  const DASHES = ['', '6 3', '2 3', '8 3 2 3'];
  function node(parent, name, attributes, text) {
    const one = document.createElementNS(NS, name);
    for (const key in attributes) { one.setAttribute(key, attributes[key]); }
    if (text !== undefined) { one.textContent = text; }
    parent.appendChild(one);
    return one;
  }
  function steps(low, high, n) {
    const raw = (high - low) / n, power = Math.pow(10, Math.floor(Math.log10(raw)));
    const step = [1, 2, 2.5, 5, 10].map(m => m * power).find(s => s >= raw * 0.999) || raw, out = [];
    for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + step * 1e-6; v += step) { out.push(Math.abs(v) < step * 1e-9 ? 0 : v); }
    return out;
  }
  const short = v => Number(v.toPrecision(4)).toString();
  const xText = (data, x) => data.inverse ? (x > 0 ? (1 / x).toFixed(2) + ' Å' : '∞') : short(x);
  function span(data, hidden) {
    let x0 = Infinity, x1 = -Infinity, y0 = Infinity, y1 = -Infinity;
    data.series.forEach((s, k) => s.x.forEach((x, i) => {
      const y = s.y[i];
      if (x === null || y === null) { return; }
      x0 = Math.min(x0, x); x1 = Math.max(x1, x);
      if (!hidden.has(k)) { y0 = Math.min(y0, y); y1 = Math.max(y1, y); }
    }));
    if (!(x1 >= x0)) { return [0, 1, 0, 1]; }
    if (!(y1 >= y0)) { y0 = 0; y1 = 1; }
    if (data.width) {
      // Bars stand on each other: what is shown of them reaches to their sum.
      const sums = new Map();
      data.series.forEach((s, k) => { if (s.draw === 'bars' && !hidden.has(k)) { s.x.forEach((x, i) => { sums.set(x, (sums.get(x) || 0) + s.y[i]); }); } });
      y1 = Math.max(y1, ...sums.values(), 1); x0 -= data.width / 2; x1 += data.width / 2;
    }
    if (data.inverse) { x0 = 0; y0 = Math.min(0, y0); y1 = Math.max(1, y1); }
    if (data.zero) { y0 = Math.min(0, y0); }
    if (x1 === x0) { x0 -= 0.5; x1 += 0.5; }
    const pad = y1 === y0 ? Math.abs(y1) * 0.1 || 1 : (y1 - y0) * 0.04;
    return [x0, x1, y0 - (data.inverse || (data.zero && y0 === 0) ? 0 : pad), y1 + pad];
  }
  function draw(figure, data, hidden) {
    const [x0, x1, y0, y1] = span(data, hidden);
    const px = x => L + (x - x0) / (x1 - x0) * (W - L - R), py = y => H - B - (y - y0) / (y1 - y0) * (H - T - B);
    const svg = node(figure, 'svg', {viewBox: `0 0 ${W} ${H}`, tabindex: 0, role: 'img', 'aria-label': data.title});
    for (const y of steps(y0, y1, 5)) {
      node(svg, 'line', {x1: L, x2: W - R, y1: py(y), y2: py(y), class: 'grid'});
      node(svg, 'text', {x: L - 6, y: py(y) + 4, class: 'tick', 'text-anchor': 'end'}, short(y));
    }
    const whole = !data.inverse && data.x === 'iteration';
    for (const x of steps(x0, x1, 7).filter(v => !whole || Number.isInteger(v))) {
      node(svg, 'text', {x: px(x), y: H - B + 16, class: 'tick', 'text-anchor': 'middle'}, data.inverse ? (x > 0 ? (1 / x).toFixed(1) : '∞') : short(x));
    }
    node(svg, 'line', {x1: L, x2: W - R, y1: H - B, y2: H - B, class: 'axis'});
    node(svg, 'text', {x: (L + W - R) / 2, y: H - 6, class: 'label', 'text-anchor': 'middle'}, data.x);
    node(svg, 'text', {x: 14, y: (T + H - B) / 2, class: 'label', 'text-anchor': 'middle', transform: `rotate(-90 14 ${(T + H - B) / 2})`}, data.y);
    for (const [y, text] of data.lines) {
      if (y < y0 || y > y1) { continue; }
      node(svg, 'line', {x1: L, x2: W - R, y1: py(y), y2: py(y), class: 'line'});
      node(svg, 'text', {x: W - R, y: py(y) - 3, class: 'tick', 'text-anchor': 'end'}, text);
    }
    for (const [x, text] of data.marks) {
      if (x < x0 || x > x1 * 1.0001) { continue; }
      node(svg, 'line', {x1: px(x), x2: px(x), y1: T, y2: H - B, class: 'line'});
      node(svg, 'text', {x: px(x) - 4, y: T + 10, class: 'tick', 'text-anchor': 'end'}, text);
    }
    const under = new Map();
    data.series.forEach((s, k) => {
      if (hidden.has(k)) { return; }
      if (s.draw === 'bars') {
        s.x.forEach((x, i) => {
          const from = under.get(x) || 0, to = from + s.y[i];
          under.set(x, to);
          if (s.y[i]) { node(svg, 'rect', {x: px(x - data.width / 2), width: px(data.width) - px(0), y: py(to), height: py(from) - py(to), class: `bar-of c${k % 6}`}); }
        });
        return;
      }
      if (s.draw === 'points') {
        const dots = s.x.map((x, i) => x === null || s.y[i] === null ? '' : `M${px(x).toFixed(1)} ${py(s.y[i]).toFixed(1)}h0`);
        node(svg, 'path', {d: dots.join(''), class: `points${dots.length < 300 ? ' few' : ''} c${k % 6}`});
        return;
      }
      let path = '', pen = false, points = 0;
      s.x.forEach((x, i) => {
        if (x === null || s.y[i] === null) { pen = false; return; }
        path += `${pen ? 'L' : 'M'}${px(x).toFixed(1)} ${py(s.y[i]).toFixed(1)}`;
        pen = true; points += 1;
      });
      node(svg, 'path', {d: path, class: `curve c${k % 6}`, 'stroke-dasharray': DASHES[Math.floor(k / 6) % 4]});
      if (points < 40) {
        s.x.forEach((x, i) => { if (x !== null && s.y[i] !== null) { node(svg, 'circle', {cx: px(x), cy: py(s.y[i]), r: 2.2, class: `dot c${k % 6}`}); } });
      }
    });
    return {svg, px, py, x0, x1};
  }
  // Of points alone the one that is nearest to the pointer; with the arrow keys one after the other by x.
  function points(svg, said, data, hidden, plot) {
    const ring = node(svg, 'circle', {r: 6, class: 'cursor', fill: 'none', visibility: 'hidden'}), every = [];
    data.series.forEach((s, k) => { if (!hidden.has(k)) { s.x.forEach((x, i) => { if (x !== null && s.y[i] !== null) { every.push([x, s.y[i], s.name]); } }); } });
    every.sort((a, b) => a[0] - b[0]);
    let at = -1;
    function show(index) {
      if (!every.length) { return; }
      at = Math.max(0, Math.min(every.length - 1, index));
      const [x, y, name] = every[at];
      ring.setAttribute('cx', plot.px(x)); ring.setAttribute('cy', plot.py(y)); ring.setAttribute('visibility', 'visible');
      said.textContent = `${data.x} ${short(x)}, ${data.y} ${short(y)}` + (data.series.length > 1 ? `: ${name}` : '');
    }
    svg.addEventListener('pointermove', event => {
      const box = svg.getBoundingClientRect(), u = (event.clientX - box.left) / box.width * W, v = (event.clientY - box.top) / box.height * H;
      let best = 0, near = Infinity;
      every.forEach(([x, y], i) => { const d = Math.hypot(plot.px(x) - u, plot.py(y) - v); if (d < near) { near = d; best = i; } });
      show(best);
    });
    svg.addEventListener('keydown', event => {
      if (event.key === 'ArrowRight' || event.key === 'ArrowLeft') { show(at + (event.key === 'ArrowRight' ? 1 : -1)); event.preventDefault(); }
    });
  }
  function reader(figure, data, hidden, plot) {
    const {svg, px, x0, x1} = plot, said = figure.querySelector('.values'), curves = data.series.filter(s => s.draw !== 'points');
    if (!curves.length) { points(svg, said, data, hidden, plot); return; }
    const cursor = node(svg, 'line', {y1: T, y2: H - B, class: 'cursor', visibility: 'hidden'});
    const longest = curves.reduce((a, s) => s.x.length > a.x.length ? s : a, curves[0]);
    let at = -1;
    function show(index) {
      at = Math.max(0, Math.min(longest.x.length - 1, index));
      const x = longest.x[at];
      cursor.setAttribute('x1', px(x)); cursor.setAttribute('x2', px(x)); cursor.setAttribute('visibility', 'visible');
      said.textContent = `${data.inverse ? '' : data.x + ' '}${xText(data, x)}: ` + data.series.map((s, k) => {
        if (hidden.has(k) || s.draw === 'points') { return ''; }
        let best = -1, near = Infinity;
        s.x.forEach((v, i) => { if (v !== null && Math.abs(v - x) < near) { near = Math.abs(v - x); best = i; } });
        return best < 0 || s.y[best] === null ? '' : `${s.name} ${short(s.y[best])}`;
      }).filter(Boolean).join(', ');
    }
    svg.addEventListener('pointermove', event => {
      const box = svg.getBoundingClientRect(), x = x0 + ((event.clientX - box.left) / box.width * W - L) / (W - L - R) * (x1 - x0);
      let best = 0, near = Infinity;
      longest.x.forEach((v, i) => { if (v !== null && Math.abs(v - x) < near) { near = Math.abs(v - x); best = i; } });
      show(best);
    });
    svg.addEventListener('keydown', event => {
      if (event.key === 'ArrowRight' || event.key === 'ArrowLeft') { show(at + (event.key === 'ArrowRight' ? 1 : -1)); event.preventDefault(); }
    });
  }
  // A chart that is drawn again with new data keeps what its reader has hidden.
  const kept = new Map();
  function make(figure) {
    const block = figure.querySelector('script[type="application/json"]');
    if (!block || figure.querySelector('svg')) { return; }
    const data = JSON.parse(block.textContent), hidden = kept.get(data.title) || new Set();
    kept.set(data.title, hidden);
    const title = document.createElement('figcaption');
    title.textContent = data.title; title.className = 'chart-title';
    const legend = document.createElement('div'), values = document.createElement('div');
    legend.className = 'legend'; values.className = 'values'; values.setAttribute('aria-live', 'polite');
    values.textContent = ' ';
    function again() {
      figure.querySelectorAll('svg').forEach(old => old.remove());
      const plot = draw(figure, data, hidden);
      figure.insertBefore(plot.svg, legend);
      reader(figure, data, hidden, plot);
    }
    data.series.forEach((s, k) => {
      const button = document.createElement('button');
      button.type = 'button'; button.textContent = s.name; button.className = `key c${k % 6}`;
      button.setAttribute('aria-pressed', String(!hidden.has(k)));
      button.addEventListener('click', () => {
        if (hidden.has(k)) { hidden.delete(k); } else { hidden.add(k); }
        button.setAttribute('aria-pressed', String(!hidden.has(k)));
        again();
      });
      legend.appendChild(button);
    });
    figure.append(title, legend, values);
    again();
  }
  window.verglasCharts = root => root.querySelectorAll('figure.chart').forEach(make);
  window.verglasCharts(document);
})();
