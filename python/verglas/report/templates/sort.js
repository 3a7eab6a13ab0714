// Headings of tables of class "sortable" become buttons; without the script they stay words.
window.verglasSort = function (scope) { scope.querySelectorAll('table.sortable').forEach(function (table) {
  var body = table.tBodies[0], heads = Array.from(table.tHead.rows[0].cells);
  var number = /^[-+\u2212]?[\d,]*\.?\d+(e[-+]?\d+)?(\s*\S{1,4})?$/i;
  function key(row, column) {
    var cell = row.cells[column];
    return (cell.dataset.value === undefined ? cell.textContent : cell.dataset.value).trim();
  }
  function compare(a, b) {
    if (number.test(a) && number.test(b)) {
      var x = parseFloat(a.replace(/,/g, '').replace('\u2212', '-'));
      var y = parseFloat(b.replace(/,/g, '').replace('\u2212', '-'));
      if (x !== y) { return x - y; }
    }
    return a.localeCompare(b, undefined, {numeric: true});
  }
  heads.forEach(function (head) {
    var button = document.createElement('button');
    button.type = 'button';
    while (head.firstChild) { button.appendChild(head.firstChild); }
    head.appendChild(button);
    button.addEventListener('click', function () {
      var column = head.cellIndex, up = head.getAttribute('aria-sort') !== 'ascending';
      var rows = Array.from(body.rows).map(function (row) { return [key(row, column), row]; });
      rows.sort(function (a, b) {
        if (a[0] === '' || b[0] === '') { return (a[0] === '') - (b[0] === ''); }
        return up ? compare(a[0], b[0]) : compare(b[0], a[0]);
      });
      rows.forEach(function (one) { body.appendChild(one[1]); });
      heads.forEach(function (other) { other.removeAttribute('aria-sort'); });
      head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
    });
  });
}); };
window.verglasSort(document);
