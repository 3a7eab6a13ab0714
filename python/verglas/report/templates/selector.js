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
  body.addEventListener('change', show);
  document.getElementById('unflagged').addEventListener('click', function () {
    boxes().forEach(function (box) { box.checked = box.dataset.flagged === '0'; });
    show();
  });
  document.getElementById('everything').addEventListener('click', function () {
    boxes().forEach(function (box) { box.checked = true; });
    show();
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
  show();
})();
