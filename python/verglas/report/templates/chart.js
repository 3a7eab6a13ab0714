// Draws every figure.chart of a page as SVG from the JSON in it. Hover or arrow keys: values; names: curves on and off.
(function () {
  'use strict';
  const sample = document.createElement('div');
  sample.innerHTML = '<svg></svg>'; // a page without any address in it is seen to fetch nothing
  const NS = sample.firstChild.namespaceURI, R = 14, T = 12, B = 40;
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
  window.verglasTicks = steps;
  const short = (v, digits = 4) => Number(v.toPrecision(digits)).toString();
  // Digits that tell values of a range apart which is small beside them.
  const digitsOf = (low, high) => high > low ? Math.min(12, Math.max(4, Math.ceil(Math.log10(Math.max(Math.abs(low), Math.abs(high)) / (high - low))) + 3)) : 4;
  const angle = y => Math.acos(Math.min(1, Math.max(-1, y))) * 180 / Math.PI;
  const xText = (data, x) => data.inverse ? (x > 0 ? (1 / x).toFixed(2) + ' Å' : '∞') : short(x);
  const yText = (data, y) => data.cosine ? angle(y).toFixed(0) + '°' : short(y, data.digits);
  // Viridis: even in lightness, told apart with every common colour vision and in grey.
  const SCALE = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]];
  // Blue below zero, red above, as bright at both ends: for values with a sign.
  const SIGNED = [[5, 48, 97], [67, 147, 195], [247, 247, 247], [214, 96, 77], [103, 0, 31]];
  function colour(share, scale = SCALE) {
    const at = Math.min(Math.max(share, 0), 1) * (scale.length - 1), low = Math.min(Math.floor(at), scale.length - 2), part = at - low;
    return `rgb(${scale[low].map((v, i) => Math.round(v + part * (scale[low + 1][i] - v))).join(',')})`;
  }
  // Curves go from light to dark, or from dark to light on a dark page: thin lines must be seen on their ground.
  const ofCurves = data => data.series.some(s => s.shades && s.draw === 'line');
  const onDark = () => matchMedia('(prefers-color-scheme: dark)').matches;
  const tone = (data, share) => data.signed ? colour(share, SIGNED) : colour(!ofCurves(data) ? (!data.field && onDark() ? 0.25 + 0.75 * share : share) : onDark() ? 0.4 + 0.6 * share : 0.7 * (1 - share));
  const shade = (data, v) => tone(data, (v - data.scale[0]) / (data.scale[1] - data.scale[0]));
  const cells = field => field.bytes || (field.bytes = Uint8Array.from(atob(field.values), c => c.charCodeAt(0)));
  function span(data, hidden) {
    let x0 = Infinity, x1 = -Infinity, y0 = Infinity, y1 = -Infinity;
    data.series.forEach((s, k) => s.x.forEach((x, i) => {
      const y = s.y[i];
      if (x === null || y === null || (data.log && y <= 0)) { return; }
      x0 = Math.min(x0, x); x1 = Math.max(x1, x);
      if (!hidden.has(k)) { y0 = Math.min(y0, y); y1 = Math.max(y1, y); }
    }));
    if (data.range) { return data.range; }
    if (data.field) { return [...data.field.x, ...data.field.y]; }
    if (!(x1 >= x0)) { return [0, 1, data.log ? 0.1 : 0, 1]; }
    if (!(y1 >= y0)) { y0 = data.log ? 0.1 : 0; y1 = 1; } // all curves are hidden; a logarithm has no 0
    if (data.width) {
      // Bars stand on each other: what is shown of them reaches to their sum.
      const sums = new Map();
      data.series.forEach((s, k) => { if (s.draw === 'bars' && !hidden.has(k)) { s.x.forEach((x, i) => { sums.set(x, (sums.get(x) || 0) + s.y[i]); }); } });
      y1 = Math.max(y1, ...sums.values(), 1); x0 -= data.width / 2; x1 += data.width / 2;
    }
    if (data.inverse) { x0 = 0; y0 = Math.max(-1, Math.min(0, y0)); y1 = 1; } // criteria go beyond 1 where voxels are few
    if (data.zero) { y0 = Math.min(0, y0); }
    if (x1 === x0) { x0 -= 0.5; x1 += 0.5; }
    if (data.log) { return [x0, x1, y0 / 1.15, y1 * 1.15]; }
    const pad = y1 === y0 ? Math.abs(y1) * 0.1 || 1 : (y1 - y0) * 0.04;
    return [x0, x1, y0 - (data.inverse || (data.zero && y0 === 0) ? 0 : pad), y1 + pad];
  }
  // 1, 2 and 5 of every decade; of many decades their powers alone.
  function decades(low, high) {
    const out = [], many = Math.log10(high / low) > 4;
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
      for (const m of many ? [1] : [1, 2, 5]) { const v = m * Math.pow(10, power); if (v >= low && v <= high) { out.push(v); } }
    }
    return out;
  }
  function ticks(data, y0, y1) {
    if (data.cosine) { return [0, 30, 60, 90, 120, 150, 180].map(t => Math.cos(t * Math.PI / 180)); }
    const even = steps(y0, y1, 5).filter(v => !data.whole || Number.isInteger(v)), powers = data.log ? decades(y0, y1) : [];
    return powers.length > 1 ? powers : even; // within one decade there may be none
  }
  function drawField(svg, data, px, py) {
    const {rows, columns, x, y} = data.field, bytes = cells(data.field), w = (x[1] - x[0]) / columns, h = (y[1] - y[0]) / rows;
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < columns;) {
        let end = c + 1;
        while (end < columns && bytes[r * columns + end] === bytes[r * columns + c]) { end += 1; }
        const v = bytes[r * columns + c], [a, b] = [py(y[0] + r * h), py(y[0] + (r + 1) * h)];
        if (v < 255) { node(svg, 'rect', {x: px(x[0] + c * w), width: px(x[0] + end * w) - px(x[0] + c * w), y: Math.min(a, b), height: Math.abs(a - b), class: 'cell', fill: tone(data, v / 250)}); }
        c = end;
      }
    }
  }
  function drawScale(svg, data, {right, W, H}) {
    const [low, high, text] = data.scale, digits = digitsOf(low, high);
    for (let i = 0; i < 40; i++) { node(svg, 'rect', {x: right + 12, width: 12, y: H - B - (i + 1) * (H - T - B) / 40, height: (H - T - B) / 40, class: 'cell', fill: tone(data, (i + 0.5) / 40)}); }
    for (const [v, y] of [[low, H - B], [(low + high) / 2, (T + H - B) / 2 + 4], [high, T + 10]]) { node(svg, 'text', {x: right + 29, y, class: 'tick'}, short(v, digits)); }
    const middle = (T + H - B) / 2;
    node(svg, 'text', {x: W - 6, y: middle, class: 'label', 'text-anchor': 'middle', transform: `rotate(-90 ${W - 6} ${middle})`}, text);
  }
  // What is drawn where: the margins, and the scales of both axes; with one scale for both the picture gets as high as it must.
  // In pixels of the page: words have one size whatever the width.
  function frame(data, hidden, W) {
    let [x0, x1, y0, y1] = span(data, hidden), H = Math.min(Math.max(0.47 * W, 210), 320);
    // Room for the longest number of either side.
    const wide = texts => Math.max(0, ...texts.map(t => t.length)) * 7, [low, high] = data.scale || [0, 0];
    data.digits = digitsOf(y0, y1);
    const L = Math.max(62, 32 + wide(ticks(data, y0, y1).map(y => yText(data, y))));
    const right = W - (data.scale ? Math.max(92, 50 + wide([low, (low + high) / 2, high].map(v => short(v, digitsOf(low, high))))) : R);
    if (data.equal) {
      const want = (right - L) / (x1 - x0) * (y1 - y0);
      H = Math.min(Math.max(want, 220), 520) + T + B;
      const more = (H - T - B) / want;
      if (more > 1) { const d = (y1 - y0) * (more - 1) / 2; y0 -= d; y1 += d; }
      if (more < 1) { const d = (x1 - x0) * (1 / more - 1) / 2; x0 -= d; x1 += d; }
    }
    const part = data.log ? y => Math.log(y / y0) / Math.log(y1 / y0) : y => (y - y0) / (y1 - y0);
    const px = x => L + (x - x0) / (x1 - x0) * (right - L);
    const py = data.down ? y => T + part(y) * (H - T - B) : y => H - B - part(y) * (H - T - B);
    return {x0, x1, y0, y1, px, py, right, W, H, L};
  }
  function draw(figure, data, hidden) {
    const plot = frame(data, hidden, Math.min(Math.max(figure.clientWidth || 640, 250), 736)), {x0, x1, y0, y1, px, py, right, W, H, L} = plot;
    const svg = node(figure, 'svg', {viewBox: `0 0 ${W} ${H}`, width: W, height: H, tabindex: 0, role: 'img', 'aria-label': data.title});
    (data.bands || []).forEach(([from, to, text], k) => {
      const a = px(Math.max(from, x0)), b = px(Math.min(to, x1));
      if (k % 2) { node(svg, 'rect', {x: a, width: Math.max(b - a, 0), y: T, height: H - T - B, class: 'band'}); }
      if (b - a > 7 * text.length) { node(svg, 'text', {x: (a + b) / 2, y: T - 3, class: 'tick', 'text-anchor': 'middle'}, text); }
    });
    if (data.field) { drawField(svg, data, px, py); }
    const beyond = y => data.log ? y <= 0 : data.inverse && y > (data.range ? y1 : 1.04);
    let last = Infinity;
    for (const y of ticks(data, y0, y1)) {
      if (Math.abs(py(y) - last) < 12) { continue; }
      last = py(y);
      node(svg, 'line', {x1: L, x2: right, y1: py(y), y2: py(y), class: 'grid'});
      node(svg, 'text', {x: L - 6, y: py(y) + 4, class: 'tick', 'text-anchor': 'end'}, yText(data, y));
    }
    const whole = !data.inverse && data.x === 'iteration';
    const across = data.x_ticks || steps(x0, x1, Math.max(3, Math.round(W / 90))).filter(v => !whole || Number.isInteger(v)).map(x => [x, data.inverse ? (x > 0 ? (1 / x).toFixed(1) : '∞') : short(x)]);
    let free = -Infinity;
    for (const [x, text] of across) {
      if (px(x) - 3.6 * text.length < free) { continue; } // as many as there is room for
      if (x >= x0 && x <= x1) { free = px(x) + 3.6 * text.length + 4; const end = px(x) + 3.6 * text.length > W; node(svg, 'text', {x: end ? W : px(x), y: H - B + 16, class: 'tick', 'text-anchor': end ? 'end' : 'middle'}, text); }
    }
    if (data.scale) { drawScale(svg, data, plot); }
    node(svg, 'line', {x1: L, x2: right, y1: H - B, y2: H - B, class: 'axis'});
    node(svg, 'text', {x: (L + right) / 2, y: H - 6, class: 'label', 'text-anchor': 'middle'}, data.x);
    node(svg, 'text', {x: 14, y: (T + H - B) / 2, class: 'label', 'text-anchor': 'middle', transform: `rotate(-90 14 ${(T + H - B) / 2})`}, data.y);
    for (const [y, text] of data.lines) {
      if (y < y0 || y > y1) { continue; }
      node(svg, 'line', {x1: L, x2: right, y1: py(y), y2: py(y), class: 'line'});
      node(svg, 'text', {x: right - 4, y: py(y) - 3, class: 'tick', 'text-anchor': 'end'}, text);
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
        const dots = s.x.map((x, i) => x === null || s.y[i] === null ? '' : `M${px(x).toFixed(1)} ${py(s.y[i]).toFixed(1)}h0`), few = dots.length < 300 ? ' few' : '';
        if (!s.shades) { node(svg, 'path', {d: dots.join(''), class: `points${few} c${k % 6}`}); return; }
        const group = node(svg, 'g', {class: `points${few}`});
        dots.forEach((d, i) => { if (d && s.shades[i] !== null) { node(group, 'path', {d, stroke: shade(data, s.shades[i])}); } });
        return;
      }
      let path = '', pen = false, points = 0;
      s.x.forEach((x, i) => {
        if (x === null || s.y[i] === null || beyond(s.y[i])) { pen = false; return; }
        path += `${pen ? 'L' : 'M'}${px(x).toFixed(1)} ${py(s.y[i]).toFixed(1)}`;
        pen = true; points += 1;
      });
      if (s.shades) { node(svg, 'path', {d: path, class: 'shaded', stroke: shade(data, s.shades[0])}); return; }
      node(svg, 'path', {d: path, class: `curve c${k % 6}`, 'stroke-dasharray': DASHES[Math.floor(k / 6) % 4]});
      if (points < 40) {
        s.x.forEach((x, i) => { if (x !== null && s.y[i] !== null && !beyond(s.y[i])) { node(svg, 'circle', {cx: px(x), cy: py(s.y[i]), r: 2.2, class: `dot c${k % 6}`}); } });
      }
    });
    return {svg, ...plot};
  }
  // Of points the one that is nearest to the pointer; with the arrow keys one after the other by x.
  function points(svg, said, data, hidden, plot) {
    const ring = node(svg, 'circle', {r: 6, class: 'cursor', fill: 'none', visibility: 'hidden'}), every = [];
    data.series.forEach((s, k) => { if (!hidden.has(k) && s.draw === 'points') { s.x.forEach((x, i) => { if (x !== null && s.y[i] !== null) { every.push([x, s.y[i], s, i]); } }); } });
    every.sort((a, b) => a[0] - b[0]);
    let at = -1;
    function words([x, y, s, i]) {
      const place = `${data.x} ${xText(data, x)}, ${data.y} ${yText(data, y)}`;
      const more = s.shades && s.shades[i] !== null && !(s.notes && s.notes[i]) ? `, ${data.scale[2]} ${short(s.shades[i], digitsOf(data.scale[0], data.scale[1]))}` : '';
      return (s.notes && s.notes[i] || place) + more + (data.series.length > 1 ? `: ${s.name}` : '');
    }
    function show(index) {
      if (!every.length) { return; }
      at = Math.max(0, Math.min(every.length - 1, index));
      ring.setAttribute('cx', plot.px(every[at][0])); ring.setAttribute('cy', plot.py(every[at][1])); ring.setAttribute('visibility', 'visible');
      said.textContent = words(every[at]);
    }
    svg.addEventListener('pointermove', event => {
      const box = svg.getBoundingClientRect(), u = (event.clientX - box.left) / box.width * plot.W, v = (event.clientY - box.top) / box.height * plot.H;
      let best = 0, near = Infinity;
      every.forEach(([x, y], i) => { const d = Math.hypot(plot.px(x) - u, plot.py(y) - v); if (d < near) { near = d; best = i; } });
      show(best);
    });
    svg.addEventListener('keydown', event => {
      if (event.key === 'ArrowRight' || event.key === 'ArrowLeft') { show(at + (event.key === 'ArrowRight' ? 1 : -1)); event.preventDefault(); }
    });
  }
  // Of a field the value of the cell under the pointer; arrow keys go from cell to cell.
  function fieldReader(svg, said, data, plot) {
    const {rows, columns, x, y} = data.field, bytes = cells(data.field), [low, high, text] = data.scale;
    const box = node(svg, 'rect', {class: 'cursor', fill: 'none', visibility: 'hidden'}), w = (x[1] - x[0]) / columns, h = (y[1] - y[0]) / rows;
    let r = Math.floor(rows / 2), c = -1;
    function show(row, column) {
      r = Math.min(Math.max(row, 0), rows - 1); c = Math.min(Math.max(column, 0), columns - 1);
      const v = bytes[r * columns + c], [a, b] = [plot.py(y[0] + r * h), plot.py(y[0] + (r + 1) * h)];
      const place = {x: plot.px(x[0] + c * w), width: plot.px(x[0] + w) - plot.px(x[0]), y: Math.min(a, b), height: Math.abs(a - b), visibility: 'visible'};
      for (const key in place) { box.setAttribute(key, place[key]); }
      said.textContent = `${data.x} ${xText(data, x[0] + (c + 0.5) * w)}, ${data.y} ${yText(data, y[0] + (r + 0.5) * h)}: ` + (v === 255 ? 'unknown' : `${Number((low + v / 250 * (high - low)).toPrecision(3))} ${text}`);
    }
    svg.addEventListener('pointermove', event => {
      const at = svg.getBoundingClientRect(), u = (event.clientX - at.left) / at.width * plot.W, v = (event.clientY - at.top) / at.height * plot.H;
      const share = (u - plot.px(x[0])) / (plot.px(x[1]) - plot.px(x[0])), up = (v - plot.py(y[0])) / (plot.py(y[1]) - plot.py(y[0]));
      show(Math.floor(up * rows), Math.floor(share * columns));
    });
    svg.addEventListener('keydown', event => {
      const by = {ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowUp: [1, 0], ArrowDown: [-1, 0]}[event.key];
      if (by) { show(r + by[0], c + by[1]); event.preventDefault(); }
    });
  }
  function reader(figure, data, hidden, plot) {
    const {svg, px, x0, x1, right, W, H, L} = plot, said = figure.querySelector('.values'), curves = data.series.filter(s => s.draw !== 'points');
    if (data.field) { fieldReader(svg, said, data, plot); return; }
    if (!curves.length || data.equal) { points(svg, said, data, hidden, plot); return; }
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
        return best < 0 || s.y[best] === null ? '' : `${s.name} ${short(s.y[best], data.digits)}`;
      }).filter(Boolean).join(', ');
    }
    svg.addEventListener('pointermove', event => {
      const box = svg.getBoundingClientRect(), x = x0 + ((event.clientX - box.left) / box.width * W - L) / (right - L) * (x1 - x0);
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
  // A chart that takes its maker time is asked for when the page stands.
  async function ask(figure) {
    if (figure.dataset.asked) { return; }
    figure.dataset.asked = '1';
    const answer = await fetch(figure.dataset.source).catch(() => new Response('', {status: 503})), block = document.createElement('script');
    if (!answer.ok) {
      const told = await answer.json().catch(() => ({}));
      figure.textContent = told.problem || 'This chart could not be had; load the page again.';
      return;
    }
    block.type = 'application/json'; block.textContent = await answer.text();
    figure.append(block);
    make(figure);
  }
  function make(figure) {
    const block = figure.querySelector('script[type="application/json"]');
    if (!block && figure.dataset.source) { ask(figure); return; }
    if (!block || figure.querySelector('svg')) { return; }
    const data = JSON.parse(block.textContent), hidden = kept.get(data.title) || new Set();
    kept.set(data.title, hidden);
    const title = document.createElement('figcaption');
    title.textContent = data.title; title.className = 'chart-title';
    const legend = document.createElement('div'), values = document.createElement('div');
    legend.className = 'legend'; values.className = 'values'; values.setAttribute('aria-live', 'polite');
    values.textContent = ' ';
    function again() {
      const focused = document.activeElement && document.activeElement.parentNode === figure; // of who reads by arrow keys
      figure.querySelectorAll('svg').forEach(old => old.remove());
      const plot = draw(figure, data, hidden);
      figure.insertBefore(plot.svg, legend);
      if (focused) { plot.svg.focus({preventScroll: true}); }
      reader(figure, data, hidden, plot);
    }
    data.series.forEach((s, k) => {
      const button = document.createElement('button');
      button.type = 'button'; button.textContent = s.name; button.className = s.shades && s.draw === 'line' ? 'key' : `key c${k % 6}`;
      if (s.shades && s.draw === 'line') { button.style.setProperty('--c', shade(data, s.shades[0])); }
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
    // Another width: drawn anew, once the reader has stopped dragging.
    let wide = figure.clientWidth, timer = 0;
    new ResizeObserver(() => {
      if (Math.abs(figure.clientWidth - wide) < 8) { return; }
      wide = figure.clientWidth; clearTimeout(timer); timer = setTimeout(again, 120);
    }).observe(figure);
  }
  window.verglasCharts = root => root.querySelectorAll('figure.chart').forEach(make);
  window.verglasCharts(document);
})();
