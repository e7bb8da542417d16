"use strict";
(function () {
  var data = JSON.parse(document.getElementById("numbers").textContent);
  var NS = "http://www.w3.org/2000/svg", chosen = -1, confidence = data.start;
  var sliders = ["slider", "slider2"].map(function (id) { return document.getElementById(id); }).filter(Boolean);
  var columns = data.names.length ? data.right[0].length : 0;

  function sum(table, column) { return table.reduce(function (total, row) { return total + row[column]; }, 0); }
  function place(value) { return Math.max(0, Math.min(columns - 1, Math.round(value / data.step))); }
  function counts(label, column) { // right, wrong, missed boxes of a class, or of all (-1)
    if (!columns) { return [0, 0, 0]; }
    var all = label < 0;
    var right = all ? sum(data.right, column) : data.right[label][column];
    var wrong = all ? sum(data.wrong, column) : data.wrong[label][column];
    var objects = all ? data.objects.reduce(function (a, b) { return a + b; }, 0) : data.objects[label];
    return [right, wrong, objects - right];
  }
  function rates(c) { // precision, recall, F; null where there is nothing to divide by
    var b = data.beta * data.beta, bottom = (1 + b) * c[0] + b * c[2] + c[1];
    return [c[0] + c[1] ? c[0] / (c[0] + c[1]) : null, c[0] + c[2] ? c[0] / (c[0] + c[2]) : null,
      c[0] + c[2] && bottom ? (1 + b) * c[0] / bottom : null];
  }
  function text(value) { return value === null ? "-" : value.toFixed(3); }

  function frame(id) { // a chart's axes go from 0 to 1
    var svg = document.querySelector("#chart-" + id + " svg"), d = svg.dataset;
    var layer = svg.appendChild(document.createElementNS(NS, "g"));
    return {
      svg: svg, layer: layer,
      x: function (v) { return +d.left + v * (d.right - d.left); },
      y: function (v) { return +d.bottom - v * (d.bottom - d.top); },
      value: function (event) {
        var box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
        return Math.max(0, Math.min(1, ((event.clientX - box.left) * scale - d.left) / (d.right - d.left)));
      },
      left: +d.left, right: +d.right, top: +d.top, bottom: +d.bottom
    };
  }
  function add(parent, tag, attributes, words) {
    var node = parent.appendChild(document.createElementNS(NS, tag));
    Object.keys(attributes).forEach(function (key) { node.setAttribute(key, attributes[key]); });
    if (words !== undefined) { node.textContent = words; }
    return node;
  }
  function curve(f, points, look) {
    add(f.layer, "polyline", {"class": "line " + look, points: points.map(function (p) {
      return f.x(p[0]).toFixed(1) + "," + f.y(p[1]).toFixed(1);
    }).join(" ")});
  }
  function says(f, x, lines) { // a small plate beside the pointer
    var wide = 118, left = x + wide + 10 > f.right ? x - wide - 6 : x + 6;
    add(f.layer, "rect", {"class": "plate", x: left, y: f.top + 2, width: wide, height: 6 + 15 * lines.length});
    lines.forEach(function (line, i) { add(f.layer, "text", {"class": "says", x: left + 5, y: f.top + 16 + 15 * i}, line); });
  }

  var threshold = frame("threshold"), pr = frame("pr"), names = ["precision", "recall", data.f];
  var key = document.createElement("div");
  key.className = "legend";
  names.forEach(function (name, i) {
    var span = key.appendChild(document.createElement("span"));
    span.appendChild(document.createElement("i")).className = "s" + (i + 1);
    span.appendChild(document.createTextNode(name));
  });
  threshold.svg.after(key);
  var here = document.createElement("div");
  here.className = "legend here";
  key.after(here);

  function drawThreshold() {
    threshold.layer.textContent = "";
    var lines = [[], [], []], every = Math.max(1, Math.floor(columns / 250));
    for (var i = 0; i < columns; i += every) {
      rates(counts(chosen, i)).forEach(function (value, n) { if (value !== null) { lines[n].push([i * data.step, value]); } });
    }
    lines.forEach(function (points, n) { curve(threshold, points, "s" + (n + 1)); });
    var x = threshold.x(confidence), now = rates(counts(chosen, place(confidence)));
    add(threshold.layer, "line", {"class": "mark", x1: x, x2: x, y1: threshold.top, y2: threshold.bottom});
    now.forEach(function (value, n) {
      if (value !== null) { add(threshold.layer, "circle", {"class": "s" + (n + 1), cx: x, cy: threshold.y(value), r: 4}); }
    });
    here.textContent = "at " + confidence.toFixed(3) + ": " + names.map(function (name, i) { return name + " " + text(now[i]); }).join(", ");
  }

  function prLine() { // precision and confidence at 101 recalls, of a class or the mean of all that have objects
    var rows = chosen >= 0 ? [chosen] : data.names.map(function (_, i) { return i; });
    rows = rows.filter(function (i) { return data.precision[i][0] >= 0; });
    if (!rows.length) { return null; }
    return data.precision[0].map(function (_, column) {
      var total = 0;
      rows.forEach(function (i) { total += data.precision[i][column]; });
      return [total / rows.length, chosen >= 0 ? data.confidence[chosen][column] : null];
    });
  }
  function drawPR(recall) {
    pr.layer.textContent = "";
    var line = prLine();
    if (!line) { add(pr.layer, "text", {x: pr.left + 20, y: pr.top + 30}, "no object of this class"); return; }
    curve(pr, line.map(function (p, i) { return [i / 100, p[0]]; }), "s1");
    if (recall === undefined) { return; }
    var at = Math.round(recall * 100), x = pr.x(at / 100), words = ["recall " + (at / 100).toFixed(2), "precision " + line[at][0].toFixed(3)];
    if (line[at][1] !== null && line[at][0] > 0) { words.push("confidence " + line[at][1].toFixed(3)); }
    add(pr.layer, "line", {"class": "mark", x1: x, x2: x, y1: pr.top, y2: pr.bottom});
    add(pr.layer, "circle", {"class": "s1", cx: x, cy: pr.y(line[at][0]), r: 4});
    says(pr, x, words);
  }

  function drawTable() {
    document.querySelectorAll("#per-class tbody tr").forEach(function (row) {
      var values = rates(counts(+row.dataset["class"], place(confidence)));
      row.querySelectorAll("td.moving").forEach(function (cell, i) { cell.textContent = text(values[i]); });
    });
    var c = counts(-1, place(confidence)), all = rates(c);
    ["precision", "recall", "f"].forEach(function (name, i) { document.getElementById("all-" + name).textContent = text(all[i]); });
    document.getElementById("all-counts").textContent = c.join(" / ");
    document.querySelectorAll("#confidence, .at").forEach(function (node) { node.textContent = confidence.toFixed(3); });
  }

  function place_box(parent, box, look, words) {
    var node = parent.appendChild(document.createElement("span"));
    node.className = "box " + look + (box[1] < 6 ? " high" : "");
    ["left", "top", "width", "height"].forEach(function (side, i) { node.style[side] = box[i] + "%"; });
    if (words) { node.appendChild(document.createElement("b")).textContent = words; }
  }
  function drawGallery() {
    document.querySelectorAll("figure.picture").forEach(function (figure) {
      var entry = data.gallery[+figure.dataset.picture], image = figure.querySelector(".image"), found = {}, n = [0, 0, 0];
      image.querySelectorAll(".box").forEach(function (node) { node.remove(); });
      entry.boxes.forEach(function (box) {
        if (box.s <= confidence) { return; }
        if (box.r === 1) { found[box.o] = true; }
        if (box.r < 2) { n[box.r === 1 ? 0 : 1] += 1; }
        place_box(image, box.b, ["wrong", "right", "passed"][box.r], box.r < 2 ? data.names[box.k] + " " + box.s.toFixed(2) : "");
      });
      entry.objects.forEach(function (thing, i) {
        if (thing.x || found[i]) { return; }
        n[2] += 1;
        place_box(image, thing.b, "missed", data.names[thing.k]);
      });
      figure.querySelector(".counts").textContent = n[0] + " right, " + n[1] + " wrong, " + n[2] + " missed";
    });
  }

  var waiting = false;
  function draw() { waiting = false; drawTable(); drawThreshold(); drawGallery(); }
  function move(value) {
    confidence = Math.max(0, Math.min(0.99, Math.round(value / data.step) * data.step));
    sliders.forEach(function (slider) { slider.value = confidence; });
    if (waiting) { return; }
    waiting = true;
    setTimeout(draw, 15); // a slider tells more often than a screen shows; a page in the background has no frames
  }
  sliders.forEach(function (slider) { slider.addEventListener("input", function () { move(+slider.value); }); });
  document.getElementById("reset").addEventListener("click", function () { move(data.start); });
  document.getElementById("class").addEventListener("change", function (event) {
    chosen = +event.target.value;
    drawThreshold();
    drawPR();
  });
  threshold.svg.addEventListener("pointerdown", function (event) { move(threshold.value(event)); });
  threshold.svg.addEventListener("pointermove", function (event) { if (event.buttons) { move(threshold.value(event)); } });
  pr.svg.addEventListener("pointermove", function (event) { drawPR(pr.value(event)); });
  pr.svg.addEventListener("pointerleave", function () { drawPR(); });
  var labels = document.getElementById("labels");
  if (labels) {
    labels.addEventListener("change", function () { document.querySelector(".gallery").classList.toggle("plain", !labels.checked); });
  }
  move(data.start);
  drawPR();
})();
