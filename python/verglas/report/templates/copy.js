// Buttons that copy the command beside them; where a page may not write to the clipboard the command is marked instead.
document.querySelectorAll('.command .copy').forEach(function (button) {
  button.addEventListener('click', function () {
    var code = button.parentNode.querySelector('code');
    function mark() { var range = document.createRange(); range.selectNodeContents(code); getSelection().removeAllRanges(); getSelection().addRange(range); }
    if (navigator.clipboard) { navigator.clipboard.writeText(code.textContent).then(function () { button.textContent = 'Copied'; }, mark); } else { mark(); }
  });
});
