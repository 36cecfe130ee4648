// What lies under the pointer, or where the arrow keys went, of every line of a plot. Names and numbers come told already.
"use strict";
const tip = document.body.appendChild(document.createElement("div"));
tip.className = "tip";
tip.hidden = true;
tip.setAttribute("role", "status");
for (const figure of document.querySelectorAll("figure")) {
  const svg = figure.querySelector("svg");
  const lines = JSON.parse(figure.querySelector("script").textContent).filter((line) => line.points.length);
  if (!lines.length) continue;
  const cursor = document.createElementNS("http://www.w3.org/2000/svg", "path");
  cursor.setAttribute("class", "cursor");
  const box = svg.viewBox.baseVal;
  const places = [...new Set(lines.flatMap((line) => line.points.map((point) => point[0])))].sort((a, b) => a - b);
  let at = 0;
  const nearest = (points, x) =>
    points.reduce((best, point) => (Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best));
  const cell = (row, text) => (row.appendChild(document.createElement("td")).textContent = text);
  const show = (x) => {
    at = places.reduce((best, place, index) => (Math.abs(place - x) < Math.abs(places[best] - x) ? index : best), 0);
    x = places[at];
    cursor.setAttribute("d", `M${x} 12V${box.height - 40}`);
    svg.append(cursor);
    const table = document.createElement("table");
    for (const line of lines) {
      const point = nearest(line.points, x);
      const row = table.appendChild(document.createElement("tr"));
      cell(row, line.name);
      cell(row, point[1]);
      cell(row, point[2]);
    }
    tip.replaceChildren(table);
    tip.hidden = false;
    const frame = svg.getBoundingClientRect();
    const left = frame.left + (x / box.width) * frame.width;
    const width = tip.offsetWidth;
    const besides = left + 14 + width > innerWidth - 8 ? left - 14 - width : left + 14;
    tip.style.left = `${Math.max(8, besides) + scrollX}px`;
    tip.style.top = `${frame.top + scrollY + 14}px`;
  };
  const hide = () => {
    tip.hidden = true;
    cursor.remove();
  };
  const follow = (event) => {
    const frame = svg.getBoundingClientRect();
    show(((event.clientX - frame.left) / frame.width) * box.width);
  };
  svg.addEventListener("pointermove", follow);
  svg.addEventListener("pointerdown", follow);
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -places.length, End: places.length }[event.key];
    if (event.key === "Escape") hide();
    if (step === undefined) return;
    event.preventDefault();
    show(places[Math.min(Math.max(at + step, 0), places.length - 1)]);
  });
}
