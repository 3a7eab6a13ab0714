// Pages that follow the jobs: parts marked data-live are replaced as files change; whatever a reader has set stays.
(function () {
  'use strict';
  const job = document.body.dataset.job, live = document.getElementById('live');
  // The token has become a cookie: it need not stay in the address, which is easily passed on.
  const here = new URL(location.href);
  if (here.searchParams.has('token')) { here.searchParams.delete('token'); history.replaceState(null, '', here); }

  async function sizes() {
    const cells = document.querySelectorAll('[data-size]');
    if (!cells.length) { return; }
    const answer = await fetch('/sizes');
    if (!answer.ok) { return; }
    const known = await answer.json();
    document.querySelectorAll('[data-size]').forEach(cell => { cell.textContent = known[cell.dataset.size] || ''; });
  }
  let busy = false, again = false;
  async function refresh() {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const answer = await fetch(location.pathname + location.search, {headers: {accept: 'text/html'}});
      if (!answer.ok) { return; }
      const fresh = new DOMParser().parseFromString(await answer.text(), 'text/html');
      document.querySelectorAll('[data-live]').forEach(old => {
        const now = fresh.querySelector(`[data-live="${old.dataset.live}"]`);
        if (!now || old.dataset.was === now.innerHTML) { return; }
        if (old.dataset.was === undefined && same(old, now)) { old.dataset.was = now.innerHTML; return; }
        const focus = old.contains(document.activeElement) ? document.activeElement.textContent : null, scroll = old.scrollLeft;
        old.dataset.was = now.innerHTML;
        old.replaceChildren(...document.importNode(now, true).childNodes);
        old.hidden = now.hidden; old.scrollLeft = scroll;
        window.verglasCharts(old); toEnd(old);
        if (window.verglasSort) { window.verglasSort(old); }
        if (focus !== null) { const one = [...old.querySelectorAll('a, button')].find(e => e.textContent === focus); if (one) { one.focus(); } }
      });
      document.title = fresh.title;
      find();
      await sizes();
    } finally {
      busy = false;
      if (again) { again = false; refresh(); }
    }
  }
  const toEnd = part => part.querySelectorAll('.tail').forEach(one => { one.scrollTop = one.scrollHeight; });
  const pictures = part => [...part.querySelectorAll('img, [data-source]')].map(one => one.getAttribute('src') || one.dataset.source).join(' ');
  const same = (a, b) => a.textContent === b.textContent && pictures(a) === pictures(b);
  function follow() {
    const events = new EventSource('/events');
    let first = true;
    events.onopen = () => { live.dataset.state = 'live'; live.textContent = 'live'; };
    events.onmessage = event => {
      const told = JSON.parse(event.data), mine = !job || told.changed.includes(job) || told.gone.includes(job);
      // The first message says what there is; after a break it may differ from what the page shows.
      if ((first && live.dataset.broken === '1') || (!first && mine)) { refresh(); }
      first = false; live.dataset.broken = '0';
    };
    events.onerror = () => { live.dataset.state = 'lost'; live.dataset.broken = '1'; live.textContent = 'the server does not answer'; first = true; };
  }
  const box = document.getElementById('find');
  function find() {
    if (!box) { return; }
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    document.querySelectorAll('#jobs tbody tr').forEach(row => {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every(word => text.includes(word));
    });
  }
  if (box) { box.addEventListener('input', find); box.form.addEventListener('submit', event => { if (document.activeElement === box) { event.preventDefault(); } }); }
  // A command whose reader is asked for what no file says: it stands there, and can be copied, once all is known.
  function fill(block) {
    let text = block.dataset.text, all = true;
    block.querySelectorAll('input').forEach(one => {
      const known = one.value !== '' && one.validity.valid;
      const asked = ` ${one.dataset.word} `, option = one.dataset.word.split(' ')[0];
      all = all && (known || !text.includes(asked));
      if (known) { text = text.replace(asked, () => ` ${option} ${one.value} `); }
    });
    block.querySelector('code').textContent = all ? text : 'The command stands here once this is known.';
    block.querySelector('button').disabled = !all;
  }
  window.verglasCommand = (block, text) => { block.dataset.text = text; block.hidden = !text; fill(block); };
  document.addEventListener('input', event => { const block = event.target.closest('.command'); if (block) { fill(block); } });
  document.addEventListener('click', async event => {
    if (!event.target.matches('button.copy')) { return; }
    const text = event.target.parentNode.querySelector('code').textContent;
    try { await navigator.clipboard.writeText(text); event.target.textContent = 'Copied'; } catch (error) {
      const range = document.createRange();
      range.selectNodeContents(event.target.parentNode.querySelector('code'));
      getSelection().removeAllRanges(); getSelection().addRange(range);
    }
  });
  async function act(what, value, said) {
    const answer = await fetch(`/jobs/${job}/${what}`, {method: 'POST', headers: {'content-type': 'application/json'}, body: JSON.stringify(value)});
    const told = await answer.json();
    said.textContent = answer.ok ? told.said : told.problem;
    return told;
  }
  document.querySelectorAll('button.act').forEach(button => button.addEventListener('click', () => {
    if (!confirm(button.dataset.question)) { return; }
    button.disabled = true;
    act(button.dataset.act, {}, button.parentNode.querySelector('.said'));
  }));
  document.querySelectorAll('button.keep').forEach(button => button.addEventListener('click', () => {
    const words = document.getElementById('words');
    act('note', {note: words.value, seen: words.dataset.seen}, button.parentNode.querySelector('.said')).then(told => { if (told.seen) { words.dataset.seen = told.seen; } });
  }));
  document.querySelectorAll('button.clean').forEach(button => button.addEventListener('click', () => {
    const names = [...document.querySelectorAll('.removable input:checked')].map(box => box.value);
    if (names.length && confirm(`Remove ${names.join(', ')} for good?`)) { act('clean', {names}, button.parentNode.querySelector('.said')); }
  }));
  toEnd(document); sizes(); follow();
})();
