// A map that turns: every div.volume of a page becomes a viewer (WebGL2, nothing fetched but the maps of its own page).
// Maps and models come packed (report/volume.py, report/model.py), inside the page or from data-maps, a list of
// {name, url, kind}.
(function () {
  'use strict';
  const VERTEX = `#version 300 es
    in vec3 at; in vec3 normal; in vec3 tint; uniform mat3 turn; uniform vec4 frame; uniform vec2 pan;
    out vec3 n; out vec3 c; out float depth;
    void main() { vec3 p = turn * (at - frame.xyz) * frame.w; n = turn * normal; c = tint; depth = p.z;
      gl_Position = vec4(p.x + pan.x, p.y + pan.y, -p.z * 0.4, 1.0); }`;
  const FRAGMENT = `#version 300 es
    precision highp float; in vec3 n; in vec3 c; in float depth; uniform float alpha; out vec4 colour;
    void main() { vec3 u = normalize(n); if (u.z < 0.0) { u = -u; }
      float light = 0.25 + 0.65 * max(dot(u, vec3(-0.45, 0.6, 0.66)), 0.0) + 0.2 * max(dot(u, vec3(0.8, -0.2, 0.5)), 0.0);
      light *= 0.85 + 0.25 * clamp(depth, -1.0, 1.0);
      colour = vec4(min(c * light * 1.2, vec3(1.0)) * alpha, alpha); }`;
  const BLUE = [0.42, 0.64, 0.84];
  // Cividis by five stops: the same order of brightness for every colour vision.
  const SCALE = [[0, 0.13, 0.30], [0.24, 0.30, 0.42], [0.48, 0.48, 0.47], [0.73, 0.67, 0.42], [1.0, 0.91, 0.27]];
  // Differences about zero: blue, white, orange, which every colour vision tells apart.
  const SIGNED = [[0.0, 0.30, 0.60], [0.45, 0.68, 0.88], [0.95, 0.95, 0.95], [0.95, 0.68, 0.35], [0.75, 0.33, 0.0]];
  // Chains of a model, after Okabe and Ito.
  const CHAINS = [[0.90, 0.62, 0.0], [0.0, 0.62, 0.45], [0.80, 0.47, 0.65], [0.94, 0.89, 0.26], [0.84, 0.37, 0.0], [0.34, 0.71, 0.91]];
  const spaced = name => name.replace(/_/g, ' ');

  async function unpack(bytes) {
    const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
    const head = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
    const stream = new Blob([bytes.subarray(4 + length)]).stream().pipeThrough(new DecompressionStream('deflate'));
    const raw = await new Response(stream).arrayBuffer();
    if (head.kind === 'model') { head.places = new Float32Array(raw); return head; }
    head.grey = head.bits === 16 ? new Uint16Array(raw) : new Uint8Array(raw);
    head.step = (head.high - head.low) / ((1 << head.bits) - 1);
    return head;
  }
  // Work of long steps in slices of a few milliseconds: a page whose surface is being made scrolls and answers. What has
  // been asked for since ends it.
  const SLICE_MS = 10, pause = () => new Promise(resolve => setTimeout(resolve));
  async function inSlices(steps, wanted) {
    let until = performance.now() + SLICE_MS;
    for (;;) {
      const step = steps.next();
      if (step.done) { return step.value; }
      if (performance.now() < until) { continue; }
      await pause();
      if (!wanted()) { return null; }
      until = performance.now() + SLICE_MS;
    }
  }
  // When the page stands: WebGL takes its time to begin, most of all in software.
  // A frame that is drawn is not yet seen: what begins before that is done first, and the reader looks at nothing.
  const painted = () => new Promise(resolve => {
    setTimeout(resolve, 3000); // a page that nobody looks at is not painted
    new PerformanceObserver((list, observer) => { observer.disconnect(); resolve(); }).observe({type: 'paint', buffered: true});
  });
  // Every second voxel: the surface that is shown while that of all is made.
  function thinned(map) {
    const [nx, ny, nz] = map.shape, shape = map.shape.map(n => Math.ceil(n / 2)), grey = new map.grey.constructor(shape[0] * shape[1] * shape[2]);
    let k = 0;
    for (let z = 0; z < nz; z += 2) { for (let y = 0; y < ny; y += 2) { for (let x = 0; x < nx; x += 2) { grey[k++] = map.grey[(z * ny + y) * nx + x]; } } }
    return {...map, shape, grey};
  }
  // Surface nets: a vertex in each cell that the surface crosses, at the mean of its crossings, a quad about each edge.
  function* surface(map, level) {
    const [nx, ny, nz] = map.shape, g = map.grey, at = (level - map.low) / map.step, row = nx, plane = nx * ny;
    const index = new Int32Array(nx * ny * nz).fill(-1), place = [], quads = [];
    const corner = [0, 1, row, row + 1, plane, plane + 1, plane + row, plane + row + 1];
    const edges = [0, 1, 2, 3, 4, 5, 6, 7, 0, 2, 1, 3, 4, 6, 5, 7, 0, 4, 1, 5, 2, 6, 3, 7];
    for (let z = 0; z < nz - 1; z++) { for (let y = 0; y < ny - 1; y++) {
      if (y % 16 === 0) { yield; }
      let i = z * plane + y * row;
      for (let x = 0; x < nx - 1; x++, i++) {
        let inside = 0;
        for (let k = 0; k < 8; k++) { if (g[i + corner[k]] > at) { inside |= 1 << k; } }
        if (inside === 0 || inside === 255) { continue; }
        let sx = 0, sy = 0, sz = 0, n = 0;
        for (let e = 0; e < 24; e += 2) {
          const a = edges[e], b = edges[e + 1];
          if ((inside >> a & 1) === (inside >> b & 1)) { continue; }
          const ga = g[i + corner[a]], t = (at - ga) / (g[i + corner[b]] - ga);
          sx += (a & 1) + t * ((b & 1) - (a & 1)); sy += (a >> 1 & 1) + t * ((b >> 1 & 1) - (a >> 1 & 1));
          sz += (a >> 2) + t * ((b >> 2) - (a >> 2)); n++;
        }
        index[i] = place.length / 3;
        place.push(x + sx / n, y + sy / n, z + sz / n);
        const here = inside & 1, axes = [[1, row, plane], [row, plane, 1], [plane, 1, row]], clear = [y > 0 && z > 0, z > 0 && x > 0, x > 0 && y > 0];
        for (let k = 0; k < 3; k++) {
          const [along, u, v] = axes[k];
          if (!clear[k] || here === (g[i + along] > at ? 1 : 0)) { continue; }
          const q = [index[i - u - v], index[i - v], index[i], index[i - u]];
          if (q[0] < 0 || q[1] < 0 || q[3] < 0) { continue; }
          if (here) { quads.push(q[0], q[1], q[2], q[0], q[2], q[3]); } else { quads.push(q[0], q[2], q[1], q[0], q[3], q[2]); }
        }
      }
    } }
    return {place: new Float32Array(place), faces: new Uint32Array(quads)};
  }
  function value(map, x, y, z) {
    const [nx, ny, nz] = map.shape, cx = Math.min(Math.max(x, 0), nx - 1.001), cy = Math.min(Math.max(y, 0), ny - 1.001), cz = Math.min(Math.max(z, 0), nz - 1.001);
    const ix = Math.floor(cx), iy = Math.floor(cy), iz = Math.floor(cz), fx = cx - ix, fy = cy - iy, fz = cz - iz;
    const g = map.grey, i = (iz * ny + iy) * nx + ix, p = nx * ny, mix = (a, b, t) => a + (b - a) * t;
    return mix(mix(mix(g[i], g[i + 1], fx), mix(g[i + nx], g[i + nx + 1], fx), fy),
      mix(mix(g[i + p], g[i + p + 1], fx), mix(g[i + p + nx], g[i + p + nx + 1], fx), fy), fz);
  }
  function* normals(map, place) {
    const out = new Float32Array(place.length);
    for (let i = 0; i < place.length; i += 3) {
      if (i % 3072 === 0) { yield; }
      const x = place[i], y = place[i + 1], z = place[i + 2];
      const gx = value(map, x - 1, y, z) - value(map, x + 1, y, z), gy = value(map, x, y - 1, z) - value(map, x, y + 1, z), gz = value(map, x, y, z - 1) - value(map, x, y, z + 1);
      const length = Math.hypot(gx, gy, gz) || 1;
      out[i] = gx / length; out[i + 1] = gy / length; out[i + 2] = gz / length;
    }
    return out;
  }
  // Colours of the vertices by the values of another map, or by how much the first lies above it.
  function* tints(map, place, other, minus) {
    const out = new Float32Array(place.length);
    if (!other) { for (let i = 0; i < place.length; i += 3) { out.set(BLUE, i); } return out; }
    const scale = other.shape.map((n, k) => n / map.shape[k]), seen = new Float32Array(place.length / 3);
    for (let i = 0; i < seen.length; i++) {
      if (i % 1024 === 0) { yield; }
      const x = place[3 * i], y = place[3 * i + 1], z = place[3 * i + 2];
      seen[i] = other.low + other.step * value(other, x * scale[0], y * scale[1], z * scale[2]);
      if (minus) { seen[i] = map.low + map.step * value(map, x, y, z) - seen[i]; }
    }
    const order = Float32Array.from(seen).sort(), stops = minus ? SIGNED : SCALE;
    let low = order[Math.floor(order.length * 0.02)], high = order[Math.floor(order.length * 0.98)];
    if (minus) { high = Math.max(Math.abs(low), Math.abs(high)); low = -high; }
    for (let i = 0; i < seen.length; i++) {
      const t = Math.min(Math.max((seen[i] - low) / (high - low || 1), 0), 1) * 4, k = Math.min(3, Math.floor(t));
      for (let c = 0; c < 3; c++) { out[3 * i + c] = stops[k][c] + (stops[k + 1][c] - stops[k][c]) * (t - k); }
    }
    out.scale = {low, high, stops};
    return out;
  }
  function* meshOf(map, level, over, minus, rough) {
    const {place, faces} = yield* surface(rough ? thinned(map) : map, level);
    if (rough) { place.forEach((v, i) => { place[i] = 2 * v; }); }
    return {at: place, faces, normal: yield* normals(map, place), tint: yield* tints(map, place, over, minus)};
  }
  const unit = v => { const n = Math.hypot(...v) || 1; return v.map(x => x / n); };
  const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
  // A tube through the trace of each run of a chain (Catmull-Rom), an octahedron for an atom that stands alone.
  function tubes(model, map) {
    const at = [], normal = [], tint = [], faces = [], SIDES = 6, STEPS = 4;
    const radius = Math.max(0.7 / map.pixel_size_A, 0.006 * Math.max(...map.shape));
    const vertex = (middle, way, colour) => { for (let c = 0; c < 3; c++) { at.push(middle[c] + radius * way[c]); } normal.push(...way); tint.push(...colour); };
    for (const [start, count, chain] of model.runs) {
      const colour = CHAINS[chain % CHAINS.length];
      const place = i => { const k = 3 * (start + Math.min(Math.max(i, 0), count - 1)); return [0, 1, 2].map(c => (model.places[k + c] - map.origin_A[c]) / map.pixel_size_A); };
      const first = at.length / 3;
      if (count === 1) {
        for (const way of [[1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]]) { vertex(place(0), way, colour); }
        for (let k = 0; k < 4; k++) { faces.push(first + k, first + (k + 1) % 4, first + 4, first + (k + 1) % 4, first + k, first + 5); }
        continue;
      }
      let side = null;
      const rings = (count - 1) * STEPS + 1;
      for (let s = 0; s < rings; s++) {
        const i = Math.min(Math.floor(s / STEPS), count - 2), t = s / STEPS - i, q = [place(i - 1), place(i), place(i + 1), place(i + 2)];
        const mix = w => [0, 1, 2].map(c => (w[0] * q[0][c] + w[1] * q[1][c] + w[2] * q[2][c] + w[3] * q[3][c]) / 2);
        const middle = mix([-t + 2 * t * t - t * t * t, 2 - 5 * t * t + 3 * t * t * t, t + 4 * t * t - 3 * t * t * t, t * t * t - t * t]);
        const way = unit(mix([-1 + 4 * t - 3 * t * t, -10 * t + 9 * t * t, 1 + 8 * t - 9 * t * t, 3 * t * t - 2 * t]));
        const from = side || (Math.abs(way[0]) < 0.8 ? [1, 0, 0] : [0, 1, 0]), along = from[0] * way[0] + from[1] * way[1] + from[2] * way[2];
        side = unit(from.map((x, c) => x - along * way[c])); // carried on, so that the tube is not twisted
        const up = cross(way, side), ring = first + s * SIDES;
        for (let k = 0; k < SIDES; k++) {
          const a = 2 * Math.PI * k / SIDES, next = (k + 1) % SIDES;
          vertex(middle, [0, 1, 2].map(c => Math.cos(a) * side[c] + Math.sin(a) * up[c]), colour);
          if (s) { faces.push(ring + k, ring + k - SIDES, ring + next - SIDES, ring + k, ring + next - SIDES, ring + next); }
        }
      }
    }
    return {at: new Float32Array(at), normal: new Float32Array(normal), tint: new Float32Array(tint), faces: new Uint32Array(faces)};
  }
  function program(gl) {
    const made = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text); gl.compileShader(shader);
      if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) { throw new Error(gl.getShaderInfoLog(shader)); }
      gl.attachShader(made, shader);
    }
    gl.linkProgram(made);
    return made;
  }
  function upload(gl, made, mesh) {
    const array = gl.createVertexArray(), buffers = [];
    gl.bindVertexArray(array);
    for (const name of ['at', 'normal', 'tint']) {
      const buffer = gl.createBuffer(), spot = gl.getAttribLocation(made, name);
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer); gl.bufferData(gl.ARRAY_BUFFER, mesh[name], gl.STATIC_DRAW);
      gl.enableVertexAttribArray(spot); gl.vertexAttribPointer(spot, 3, gl.FLOAT, false, 0, 0);
      buffers.push(buffer);
    }
    const faces = gl.createBuffer();
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, faces); gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, mesh.faces, gl.STATIC_DRAW);
    return {array, count: mesh.faces.length, free: () => { gl.deleteVertexArray(array); [...buffers, faces].forEach(b => gl.deleteBuffer(b)); }};
  }
  const times = (a, b) => [0, 3, 6].flatMap(r => [0, 1, 2].map(c => a[r] * b[c] + a[r + 1] * b[c + 3] + a[r + 2] * b[c + 6]));
  const turned = (dx, dy) => {
    const [cx, sx, cy, sy] = [Math.cos(dy), Math.sin(dy), Math.cos(dx), Math.sin(dx)];
    return times([1, 0, 0, 0, cx, -sx, 0, sx, cx], [cy, 0, sy, 0, 1, 0, -sy, 0, cy]);
  };
  function element(parent, name, attributes, text) {
    const one = document.createElement(name);
    for (const key in attributes) { one.setAttribute(key, attributes[key]); }
    if (text !== undefined) { one.textContent = text; }
    parent.appendChild(one);
    return one;
  }
  const FIRST = times([1, 0, 0, 0, Math.cos(-0.35), -Math.sin(-0.35), 0, Math.sin(-0.35), Math.cos(-0.35)], [1, 0, 0, 0, -1, 0, 0, 0, -1]);
  class Viewer {
    constructor(root, sources) {
      Object.assign(this, {root, sources, maps: new Map(), turn: FIRST.slice(), zoom: 1, pan: [0, 0], shown: null, over: null, meshes: [], asked: 0, slow: true});
      this.bar = element(root, 'div', {class: 'volume-bar'});
      this.stage = element(root, 'div', {class: 'volume-stage'});
      this.canvas = element(this.stage, 'canvas', {tabindex: 0, role: 'img', 'aria-label': 'Surface of the map: drag or arrow keys turn it, the wheel brings it nearer'});
      if (!window.WebGL2RenderingContext) { throw new Error('no WebGL2'); }
      this.slice = element(this.stage, 'canvas', {class: 'slice', 'aria-label': 'Slice through the map', role: 'img'});
      this.said = element(root, 'div', {class: 'values', role: 'status'});
      this.scale = element(root, 'div', {class: 'volume-scale', 'aria-hidden': 'true'});
      this.scale.hidden = true;
      this.controls(); this.hands();
    }
    // Apart from what stands at once, since a browser may take half a second to begin to draw.
    begin() {
      this.gl = this.canvas.getContext('webgl2', {antialias: true, alpha: true, preserveDrawingBuffer: true});
      if (!this.gl) { throw new Error('no WebGL2'); }
      this.program = program(this.gl);
      new ResizeObserver(() => this.draw()).observe(this.canvas);
    }
    controls() {
      const names = this.sources.filter(s => s.kind !== 'model' && s.name !== 'mask').map(s => s.name), label = text => element(this.bar, 'label', {}, text + ' ');
      this.choice = element(label('Map'), 'select', {});
      names.forEach(name => element(this.choice, 'option', {value: name}, spaced(name)));
      this.choice.onchange = () => this.show(this.choice.value).catch(error => { this.said.textContent = error.message; });
      this.slider = element(label('Level'), 'input', {type: 'range', min: 0, max: 1000, step: 1});
      this.slider.oninput = () => { if (!this.shown) { return; } this.level = this.shown.low + this.slider.value / 1000 * (this.shown.high - this.shown.low); this.later(); };
      this.tint = element(label('Colour by'), 'select', {});
      element(this.tint, 'option', {value: ''}, 'one colour');
      names.forEach(name => element(this.tint, 'option', {value: name}, spaced(name)));
      if (names.length > 1) { names.forEach(name => element(this.tint, 'option', {value: name, 'data-minus': 1}, 'difference to ' + spaced(name))); }
      this.tint.onchange = () => {
        const option = this.tint.selectedOptions[0];
        this.change(option.value, () => option.selected ? option.value : null, map => { this.over = map; this.minus = option.dataset.minus === '1'; this.build(); });
      };
      this.masked = element(label('Mask'), 'input', {type: 'checkbox'});
      this.masked.parentNode.hidden = !this.sources.some(s => s.name === 'mask');
      this.masked.onchange = () => this.change(this.masked.checked ? 'mask' : '', () => this.masked.checked ? 'mask' : '', map => { this.mask = map; this.build(); });
      this.axis = element(label('Slice'), 'select', {});
      ['none', 'z', 'y', 'x'].forEach(name => element(this.axis, 'option', {value: name}, name));
      this.depth = element(this.bar, 'input', {type: 'range', min: 0, max: 1000, value: 500, 'aria-label': 'Place of the slice'});
      this.axis.onchange = this.depth.oninput = () => this.cut();
      this.slice.hidden = this.depth.hidden = true;
      const models = this.sources.filter(s => s.kind === 'model').map(s => s.name);
      this.overlay = element(label('Model'), 'select', {class: 'overlay'});
      ['', ...models].forEach(name => element(this.overlay, 'option', {value: name}, name || 'none'));
      this.overlay.parentNode.hidden = !models.length;
      this.overlay.onchange = () => this.change(this.overlay.value, () => this.overlay.value, model => { this.model = model; this.build(); });
    }
    hands() {
      const points = new Map(), canvas = this.canvas;
      canvas.addEventListener('pointerdown', e => { points.set(e.pointerId, [e.clientX, e.clientY]); canvas.setPointerCapture(e.pointerId); });
      for (const name of ['pointerup', 'pointercancel']) { canvas.addEventListener(name, e => points.delete(e.pointerId)); }
      canvas.addEventListener('pointermove', e => {
        if (!points.has(e.pointerId)) { return; }
        const [x, y] = points.get(e.pointerId), dx = e.clientX - x, dy = e.clientY - y, others = [...points].filter(p => p[0] !== e.pointerId);
        points.set(e.pointerId, [e.clientX, e.clientY]);
        if (others.length) {
          const [ox, oy] = others[0][1];
          this.zoom *= Math.hypot(e.clientX - ox, e.clientY - oy) / (Math.hypot(x - ox, y - oy) || 1);
        } else if (e.shiftKey || e.buttons === 4) { this.pan[0] += 2 * dx / canvas.clientWidth; this.pan[1] -= 2 * dy / canvas.clientHeight; }
        else { this.turn = times(turned(dx / 140, dy / 140), this.turn); }
        this.draw();
      });
      canvas.addEventListener('wheel', e => { e.preventDefault(); this.zoom *= Math.exp(-e.deltaY / 600); this.draw(); }, {passive: false});
      canvas.addEventListener('dblclick', () => { this.turn = FIRST.slice(); this.zoom = 1; this.pan = [0, 0]; this.draw(); });
      canvas.addEventListener('keydown', e => {
        const way = {ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15]}[e.key];
        if (way) { this.turn = times(turned(...way), this.turn); } else if (e.key === '+' || e.key === '-') { this.zoom *= e.key === '+' ? 1.15 : 1 / 1.15; } else { return; }
        e.preventDefault(); this.draw();
      });
    }
    async load(name) {
      if (!this.maps.has(name)) {
        const source = this.sources.find(s => s.name === name);
        this.maps.set(name, (async () => {
          if (source.bytes) { return unpack(source.bytes); }
          const answer = await fetch(source.url);
          if (!answer.ok) { throw new Error(`${name}: ${answer.status}`); }
          return unpack(new Uint8Array(await answer.arrayBuffer()));
        })());
        this.maps.get(name).catch(() => this.maps.delete(name)); // asked again when it is chosen again
      }
      return this.maps.get(name);
    }
    // What was chosen may have changed while it was read: only what is still chosen is shown.
    async change(name, chosen, take) {
      try {
        const map = name ? await this.load(name) : null;
        if (chosen() === name) { take(map); }
      } catch (error) { this.said.textContent = error.message; }
    }
    async show(name) {
      this.said.textContent = 'reading ' + name;
      const map = await this.load(name), first = !this.shown;
      if (this.choice.value !== name) { return; }
      this.shown = map;
      this.slider.step = 1;
      // Half maps are compared at the level of the map, if it lies in their range.
      if (first || this.level < this.shown.low || this.level > this.shown.high) { this.level = this.shown.level; }
      this.slider.value = 1000 * (this.level - this.shown.low) / (this.shown.high - this.shown.low);
      this.cut();
      await this.build();
    }
    later() { cancelAnimationFrame(this.waiting); this.waiting = requestAnimationFrame(() => this.build()); }
    legend(scale) {
      this.scale.hidden = !scale;
      if (!scale) { return; }
      const stops = scale.stops.map(c => `rgb(${c.map(v => Math.round(255 * v)).join(' ')})`);
      this.scale.style.background = `linear-gradient(to right, ${stops.join(', ')})`;
    }
    // The surface of every second voxel first where that of all takes time; what is chosen meanwhile ends it.
    async build() {
      if (!this.shown || !this.gl) { return; } // set while the first map is read
      const mine = ++this.asked, began = performance.now(), wanted = () => mine === this.asked;
      this.whole = false; delete this.root.dataset.drawn;
      if (this.slow && Math.max(...this.shown.shape) > 64 && !await this.put(true, wanted)) { return; }
      if (await this.put(false, wanted)) { this.slow = performance.now() - began > 100; }
    }
    async put(rough, wanted) {
      const {gl, shown, level, over, minus, mask, model} = this, shape = shown.shape;
      const made = await inSlices(meshOf(shown, level, over, minus, rough), wanted);
      const covered = made && mask && !rough ? await inSlices(meshOf(mask, 0.5, null), wanted) : null;
      if (!made || !wanted()) { return false; }
      const add = (mesh, alpha, n) => this.meshes.push(Object.assign(upload(gl, this.program, mesh), {alpha, shape: n}));
      this.meshes.forEach(one => one.free());
      this.meshes = []; this.whole = !rough;
      // What is seen through comes after what it is seen before.
      if (model) { add(tubes(model, shown), 1, shape); }
      add(made, model ? 0.45 : 1, shape);
      if (covered) { add(covered, 0.25, mask.shape); }
      this.tell(made.tint.scale);
      this.draw();
      return true;
    }
    tell(scale) {
      const shape = this.shown.shape, over = this.over && spaced(this.over.name), words = scale ? (this.minus ? ['blue', 'orange'] : ['dark', 'bright']) : null;
      const range = scale ? `; ${this.minus ? 'above ' + over : over}: ${words[0]} ${scale.low.toPrecision(3)} to ${words[1]} ${scale.high.toPrecision(3)}` : '';
      const model = this.model ? `; ${this.model.name}: ${this.model.atoms} atoms, chains ${this.model.chains.join(', ')}` : '';
      this.legend(scale);
      this.said.textContent = `${spaced(this.shown.name)}: level ${this.level.toPrecision(3)}, ${shape[0]} voxels of ${this.shown.pixel_size_A.toPrecision(3)} Å shown${range}${model}`;
    }
    draw() {
      if (!this.gl) { return; }
      const gl = this.gl, canvas = this.canvas, side = Math.round(canvas.clientWidth * Math.min(devicePixelRatio || 1, 2));
      if (side && canvas.width !== side) { canvas.width = canvas.height = side; }
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.clearColor(0, 0, 0, 0); gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      gl.enable(gl.DEPTH_TEST); gl.useProgram(this.program);
      const set = name => gl.getUniformLocation(this.program, name);
      gl.uniformMatrix3fv(set('turn'), true, this.turn); gl.uniform2fv(set('pan'), this.pan);
      for (const one of this.meshes) {
        const clear = one.alpha < 1, n = Math.max(...one.shape), triangles = () => gl.drawElements(gl.TRIANGLES, one.count, gl.UNSIGNED_INT, 0);
        gl.uniform4f(set('frame'), one.shape[0] / 2 - 0.5, one.shape[1] / 2 - 0.5, one.shape[2] / 2 - 0.5, 1.7 * this.zoom / n);
        gl.uniform1f(set('alpha'), one.alpha);
        gl.bindVertexArray(one.array); gl.disable(gl.BLEND); gl.depthMask(true); gl.depthFunc(gl.LESS);
        if (clear) { // its nearest layer alone: depths first, then the colours at them
          gl.colorMask(false, false, false, false); triangles(); gl.colorMask(true, true, true, true);
          gl.enable(gl.BLEND); gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA); gl.depthMask(false); gl.depthFunc(gl.LEQUAL);
        }
        triangles();
      }
      gl.depthMask(true);
      const count = this.meshes.reduce((n, m) => n + m.count / 3, 0);
      if (this.whole) { this.root.dataset.drawn = count; } else { this.root.dataset.rough = count; }
    }
    cut() {
      const map = this.shown, axis = 'xyz'.indexOf(this.axis.value), canvas = this.slice;
      canvas.hidden = this.depth.hidden = axis < 0;
      if (axis < 0 || !map) { return; }
      const [u, v] = [[1, 2], [0, 2], [0, 1]][axis], step = [1, map.shape[0], map.shape[0] * map.shape[1]];
      const w = canvas.width = map.shape[u], h = canvas.height = map.shape[v], at = Math.round(this.depth.value / 1000 * (map.shape[axis] - 1));
      const context = canvas.getContext('2d'), picture = context.createImageData(w, h), top = (1 << map.bits) - 1;
      for (let y = 0; y < h; y++) { for (let x = 0; x < w; x++) {
        const grey = 255 * map.grey[at * step[axis] + y * step[v] + x * step[u]] / top, k = 4 * (y * w + x);
        picture.data[k] = picture.data[k + 1] = picture.data[k + 2] = grey; picture.data[k + 3] = 255;
      } }
      context.putImageData(picture, 0, 0);
    }
  }
  function sourcesOf(root) {
    const inside = [...root.querySelectorAll('script[data-name]')].map(block => ({name: block.dataset.name, kind: block.dataset.kind, bytes: Uint8Array.from(atob(block.textContent), c => c.charCodeAt(0))}));
    return inside.length ? inside : JSON.parse(root.dataset.maps || '[]');
  }
  window.verglasVolumes = scope => scope.querySelectorAll('.volume:not([data-made])').forEach(root => {
    root.dataset.made = '1';
    const sources = sourcesOf(root), still = root.querySelector('.still');
    if (!sources.length) { return; }
    let viewer;
    const give_up = error => {
      root.querySelectorAll('.volume-bar, .volume-stage').forEach(one => one.remove());
      if (still) { still.hidden = false; }
      root.dataset.problem = error.message;
    };
    try { viewer = new Viewer(root, sources); } catch (error) { give_up(error); return; }
    if (still) { still.hidden = true; }
    viewer.load(viewer.choice.value).catch(() => {}); // is said by show, which asks for the same
    painted().then(() => { viewer.begin(); return viewer.show(viewer.choice.value); }).catch(give_up);
    if (root.dataset.colour) { viewer.tint.value = root.dataset.colour; viewer.tint.onchange(); }
    root.viewer = viewer;
  });
  window.verglasVolumes(document);
})();
