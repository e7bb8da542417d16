"use strict";
(function () {
  var root = document.documentElement, dark = window.matchMedia("(prefers-color-scheme: dark)");
  function remembered(value) { // a page opened from disk may have no storage
    try {
      if (value) { localStorage.setItem("yolite-theme", value); }
      return localStorage.getItem("yolite-theme");
    } catch (error) { return null; }
  }
  if (remembered()) { root.dataset.theme = remembered(); }
  document.getElementById("theme").addEventListener("click", function () {
    var now = root.dataset.theme || (dark.matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
    remembered(root.dataset.theme);
  });

  document.querySelectorAll("main section[id]").forEach(function (section) {
    var link = document.createElement("a");
    link.href = "#" + section.id;
    link.textContent = section.dataset.short || section.querySelector("h2").textContent;
    document.querySelector("nav").appendChild(link);
  });

  function value(row, column) {
    var cell = row.cells[column], text = cell.dataset.value === undefined ? cell.textContent.trim() : cell.dataset.value;
    var number = parseFloat(text);
    return text === "-" || text === "" ? -Infinity : isNaN(number) ? text.toLowerCase() : number;
  }
  document.querySelectorAll("table.sort").forEach(function (table) {
    var heads = Array.from(table.tHead.rows[0].cells);
    heads.forEach(function (head, column) {
      head.tabIndex = 0;
      function sort() {
        var up = head.getAttribute("aria-sort") === "descending" || (column === 0 && !head.getAttribute("aria-sort"));
        heads.forEach(function (other) { other.removeAttribute("aria-sort"); });
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        var rows = Array.from(table.tBodies[0].rows);
        rows.sort(function (a, b) {
          var x = value(a, column), y = value(b, column);
          if (typeof x !== typeof y) { x = String(x); y = String(y); }
          return (x < y ? -1 : x > y ? 1 : 0) * (up ? 1 : -1);
        });
        rows.forEach(function (row) { table.tBodies[0].appendChild(row); });
      }
      head.addEventListener("click", sort);
      head.addEventListener("keydown", function (event) { if (event.key === "Enter") { sort(); } });
    });
  });
})();
