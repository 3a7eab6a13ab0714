(function () {
  var table = document.querySelector('table.qc'), body = table.tBodies[0];
  var names = JSON.parse(document.getElementById('names').textContent);
  var boxes = function () { return Array.prototype.slice.call(body.querySelectorAll('input')); };
  var count = document.getElementById('count');
  function show() {
    var kept = 0;
    boxes().forEach(function (box) {
      box.closest('tr').classList.toggle('dropped', !box.checked);
      if (box.checked) { kept += 1; }
    });
    count.textContent = kept + ' of ' + names.length + ' micrographs kept';
  }
  // A page of something that goes on is loaded again now and then: what a reader has unticked must outlast that.
  var memory = 'verglas.kept.' + location.pathname;
  function remember() {
    var changed = {};
    boxes().forEach(function (box) {
      if (box.checked !== box.defaultChecked) { changed[names[box.dataset.row]] = box.checked; }
    });
    try { sessionStorage.setItem(memory, JSON.stringify(changed)); } catch (error) { console.info('ticks are not kept: ' + error.message); }
    show();
  }
  function recall() {
    var changed = {};
    try { changed = JSON.parse(sessionStorage.getItem(memory)) || {}; } catch (error) { console.info('ticks were not kept: ' + error.message); }
    boxes().forEach(function (box) {
      var name = names[box.dataset.row];
      if (Object.prototype.hasOwnProperty.call(changed, name)) { box.checked = changed[name]; }
    });
  }
  body.addEventListener('change', remember);
  document.getElementById('unflagged').addEventListener('click', function () {
    boxes().forEach(function (box) { box.checked = box.dataset.flagged === '0'; });
    remember();
  });
  document.getElementById('everything').addEventListener('click', function () {
    boxes().forEach(function (box) { box.checked = true; });
    remember();
  });
  document.getElementById('save').addEventListener('click', function () {
    var kept = boxes().filter(function (box) { return box.checked; }).map(function (box) { return +box.dataset.row; });
    kept.sort(function (a, b) { return a - b; });
    var lines = kept.map(function (row) {
      var name = names[row];
      return (/\s/.test(name) ? '"' + name + '"' : name) + '\n';
    });
    var text = '\ndata_\n\nloop_\n_rlnMicrographName #1\n' + lines.join('') + '\n';
    var link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([text], {type: 'text/plain'}));
    link.download = 'micrographs_kept.star';
    link.click();
    setTimeout(function () { URL.revokeObjectURL(link.href); }, 1000);
  });
  recall();
  show();
})();
