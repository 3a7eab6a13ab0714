// A page of something that goes on is read again as long as its reader only looks at it; once he has touched anything, a
// button does it: ticks, a turned map, a hidden curve and the place on the page stay.
(function () {
  'use strict';
  const bar = document.querySelector('.follow'), words = bar.querySelector('span');
  let touched = false;
  const since = new Date().toLocaleTimeString();
  function stop(event) {
    if (touched || bar.contains(event.target)) { return; }
    touched = true; bar.dataset.touched = '1';
    words.textContent = `As it was at ${since}; it is not read again by itself while you use it.`;
  }
  for (const name of ['pointerdown', 'keydown', 'input', 'wheel']) { document.addEventListener(name, stop, {capture: true, passive: true}); }
  bar.querySelector('button').addEventListener('click', () => location.reload());
  bar.hidden = false;
  words.textContent = `As it is at ${since}; read again every ${bar.dataset.seconds} s until you use it.`;
  setInterval(() => { if (!touched && !document.hidden && String(getSelection()) === '') { location.reload(); } }, 1000 * bar.dataset.seconds);
})();
