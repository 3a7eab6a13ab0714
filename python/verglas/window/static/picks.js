// Picks of one micrograph: by hand, by a limit on the merit of all candidates, by how far apart they are, and areas left out.
(function () {
  'use strict';
  const {pick, save, loop, drafts, place, cross} = window.verglasDecide, root = document.getElementById('picks');
  if (!root) { return; }
  const FEW = 1e-6;
  async function main() {
    const address = `/jobs/${root.dataset.job}/picks/${root.dataset.number}`, answer = await fetch(address + '.json'), told = await answer.json();
    if (!answer.ok) { throw new Error(told.problem || 'This micrograph cannot be shown.'); }
    const canvas = pick(root, 'micrograph'), context = canvas.getContext('2d'), picture = new Image(), past = [], slider = pick(root, 'threshold'), apart = pick(root, 'apart');
    const frame = told.step, key = (x, y) => `${Math.round(x)} ${Math.round(y)}`;
    root.dataset.seen = told.seen;
    let radius = told.radius, discs = told.left_out, keep = () => {}, marked = () => {};
    // Every candidate is a pick or not by its merit, unless a hand has said otherwise.
    const at_merit = new Map(told.candidates.map(([x, y, m]) => [key(x, y), {x, y, merit: m, by: 'merit'}]));
    const start = new Map(at_merit);
    told.xy.forEach((p, i) => {
      const merit = told.merit.length ? told.merit[i] : null, found = start.get(key(...p));
      start.set(key(...p), {x: p[0], y: p[1], merit: found ? found.merit : merit, by: found || merit !== null ? 'merit' : 'hand'});
    });
    const merits = [...start.values()].map(p => p.merit).filter(m => m !== null);
    const low = Math.min(...merits), high = Math.max(...merits);
    const picked = told.xy.map((p, i) => told.merit.length ? told.merit[i] : null).filter(m => m !== null);
    const cut = told.saved || told.threshold === null ? Math.min(...picked, high) : told.threshold;
    let list = [...start.values()];
    // Of picks changed by hand what was taken away stays away, whatever its merit.
    if (told.saved) {
      const chosen = new Set(told.xy.map(p => key(...p)));
      list = list.map(p => p.merit !== null && p.merit >= cut - FEW && !chosen.has(key(p.x, p.y)) ? {...p, by: 'never'} : p);
    }
    pick(root, 'size').value = radius; slider.disabled = !merits.length;
    const of_slider = v => low + (high - low) * v / 1000;
    let limit = merits.length ? cut : -Infinity;
    slider.value = merits.length && high > low ? Math.floor(1000 * (cut - low) / (high - low)) : 0;
    const clear = p => !discs.some(([x, y, r]) => (p.x - x) ** 2 + (p.y - y) ** 2 <= r * r);
    function shown() {
      const some = list.filter(p => p.by === 'hand' || (p.by === 'merit' && (p.merit === null || p.merit >= limit - FEW))).filter(clear);
      const least = Number(apart.value) / 100 * 2 * radius;
      if (!least) { return some; }
      // The best first; what is nearer to one of those kept than allowed goes. A grid finds the neighbours.
      const cells = new Map(), kept = [];
      for (const p of [...some].sort((a, b) => (b.by === 'hand') - (a.by === 'hand') || (b.merit || 0) - (a.merit || 0))) {
        const cx = Math.floor(p.x / least), cy = Math.floor(p.y / least);
        let free = true;
        for (let i = -1; i <= 1 && free; i++) { for (let j = -1; j <= 1 && free; j++) { free = !(cells.get(`${cx + i} ${cy + j}`) || []).some(q => Math.hypot(p.x - q.x, p.y - q.y) < least); } }
        if (!free) { continue; }
        kept.push(p);
        const cell = `${cx} ${cy}`;
        cells.set(cell, [...(cells.get(cell) || []), p]);
      }
      return kept;
    }
    function draw() {
      context.filter = `contrast(${pick(root, 'contrast').value}%) blur(${pick(root, 'smooth').value}px)`;
      context.drawImage(picture, 0, 0);
      context.filter = 'none'; context.lineWidth = 1.5; context.fillStyle = 'rgba(213, 94, 0, 0.35)';
      context.beginPath();
      for (const [x, y, r] of discs) { context.moveTo((x + 0.5 + r) / frame, (y + 0.5) / frame); context.arc((x + 0.5) / frame, (y + 0.5) / frame, r / frame, 0, 7); }
      context.fill();
      context.strokeStyle = '#39d353';
      const some = shown();
      for (const p of some) { context.beginPath(); context.arc((p.x + 0.5) / frame, (p.y + 0.5) / frame, radius / frame, 0, 7); context.stroke(); }
      marked('#ffb000');
      const all = Math.max(list.filter(p => p.by !== 'never').length, some.length);
      pick(root, 'count').textContent = `${some.length} of ${all} picks` + (discs.length ? ', areas left out' : '');
      pick(root, 'merit').textContent = merits.length ? limit.toPrecision(3) : '';
      pick(root, 'apart_said').textContent = Number(apart.value) ? `${(apart.value / 100).toFixed(2)} diameters` : '';
    }
    const state = () => ({list: list.filter(p => p.by !== 'merit' || !at_merit.has(key(p.x, p.y))), discs, limit, apart: Number(apart.value)});
    function remember() { past.push({list, discs}); if (past.length > 100) { past.shift(); } }
    function changed() { draw(); keep(state()); }
    const at = e => place(canvas, e).map(v => v * frame - 0.5);
    const near = (x, y, reach) => shown().filter(p => Math.hypot(p.x - x, p.y - y) < reach);
    const away = gone => { list = list.filter(p => !(gone.includes(p) && p.by === 'hand')).map(p => gone.includes(p) ? {...p, by: 'never'} : p); };
    const hand = () => pick(root, 'hand').value, brush = () => Number(pick(root, 'brush').value) * frame / 2;
    const inside = (x, y) => x >= 0 && y >= 0 && x < told.shape[1] && y < told.shape[0];
    let brushing = false, last = null;
    function stroke(x, y) {
      const r = brush();
      if (hand() === 'brush') { away(near(x, y, r)); }
      if (hand() === 'clear') { discs = discs.filter(d => Math.hypot(d[0] - x, d[1] - y) >= d[2]); }
      // A disc a third of its radius further on is enough to cover the way.
      if (hand() === 'carbon' && (!last || Math.hypot(x - last[0], y - last[1]) > r / 3)) { discs = [...discs, [x, y, r].map(v => Number(v.toFixed(2)))]; last = [x, y]; }
      draw();
    }
    canvas.onpointerdown = e => {
      const [x, y] = at(e);
      remember();
      if (hand() !== 'click') { brushing = true; last = null; canvas.setPointerCapture(e.pointerId); stroke(x, y); return; }
      click(x, y);
    };
    function click(x, y) {
      const hit = near(x, y, radius);
      if (hit.length) { away([hit.reduce((a, b) => Math.hypot(a.x - x, a.y - y) < Math.hypot(b.x - x, b.y - y) ? a : b)]); }
      else if (inside(x, y)) { list = [...list, {x, y, merit: null, by: 'hand'}]; }
      changed();
    }
    marked = cross(canvas, draw, (pressed, spot) => {
      if (pressed !== ' ' && pressed !== 'Enter' || !spot) { return false; }
      const [x, y] = spot.map(v => v * frame - 0.5);
      remember();
      if (hand() === 'click') { click(x, y); } else { last = null; stroke(x, y); changed(); }
      return true;
    });
    canvas.onpointermove = e => { if (brushing) { stroke(...at(e)); } };
    canvas.onpointerup = () => { if (brushing) { brushing = false; changed(); } };
    slider.oninput = () => { limit = of_slider(slider.value); changed(); };
    apart.oninput = changed;
    pick(root, 'contrast').oninput = pick(root, 'smooth').oninput = draw;
    pick(root, 'size').oninput = e => { radius = Number(e.target.value); draw(); };
    pick(root, 'undo').onclick = () => { if (past.length) { ({list, discs} = past.pop()); changed(); } };
    pick(root, 'save').onclick = () => {
      const some = shown(), xy = some.map(p => [Number(p.x.toFixed(3)), Number(p.y.toFixed(3))]);
      // One value for each or none: a pick by hand counts as the best of its micrograph.
      const merit = merits.length ? some.map(p => p.merit === null ? high : p.merit) : [];
      save(root, address, {xy, merit, left_out: discs, name: told.name, base: told.base}, () => loop('', ['rlnCoordinateX', 'rlnCoordinateY', ...(merit.length ? ['rlnAutopickFigureOfMerit'] : [])], xy.map((p, i) => merit.length ? [...p, merit[i]] : p)));
    };
    await new Promise((resolve, reject) => { picture.onload = resolve; picture.onerror = () => reject(new Error('no picture of this micrograph')); picture.src = address + '.png'; });
    canvas.width = picture.naturalWidth; canvas.height = picture.naturalHeight;
    keep = await drafts(root, 'picks-' + root.dataset.number, `${told.name} ${told.base}`, value => {
      const said = new Map(value.list.map(p => [key(p.x, p.y), p]));
      list = [...list.filter(p => !said.has(key(p.x, p.y))), ...value.list];
      discs = value.discs; apart.value = value.apart;
      if (merits.length) { limit = value.limit; slider.value = Math.floor(1000 * (limit - low) / (high - low || 1)); }
    });
    const covered = told.saved ? 0 : told.xy.filter(p => discs.some(([x, y, r]) => (p[0] - x) ** 2 + (p[1] - y) ** 2 <= r * r)).length;
    if (covered && !pick(root, 'said').textContent) { pick(root, 'said').textContent = `${covered} picks of this job lie in areas left out earlier and are not shown; they are left out once these picks are saved, or picked again without them.`; }
    draw(); root.dataset.ready = '1';
  }
  main().catch(error => { // what cannot be shown cannot be changed
    pick(root, 'said').textContent = error.message; pick(root, 'said').classList.add('problem');
    pick(root, 'micrograph').hidden = true;
    root.querySelectorAll('.bar input, .bar select, .bar button').forEach(one => { one.disabled = true; });
  });
})();
