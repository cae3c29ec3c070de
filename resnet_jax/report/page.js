"use strict";
// A cursor for every chart: follows the pointer, and the arrow keys as a slider does; tells the values at a step.
for (const figure of document.querySelectorAll("figure.chart")) addCursor(figure);

function addCursor(figure) {
  const chart = JSON.parse(figure.querySelector('script[type="application/json"]').textContent);
  const steps = [...new Set(chart.series.flatMap((one) => one.x))].sort((a, b) => a - b);
  const cursor = document.createElement("div");
  cursor.className = "cursor";
  cursor.tabIndex = 0;
  const attributes = {
    role: "slider",
    "aria-label": `${chart.name}, values at a ${chart.xName}`,
    "aria-valuemin": steps[0],
    "aria-valuemax": steps[steps.length - 1],
  };
  for (const [name, value] of Object.entries(attributes)) cursor.setAttribute(name, value);
  const rule = add(cursor, "div", "rule");
  const dots = chart.series.map((one) => add(cursor, "div", `dot ${one.run}`));
  const tip = add(cursor, "div", "tip");
  figure.querySelector(".plot").append(cursor);
  let place = steps.length - 1;
  show(place);
  hide();

  cursor.addEventListener("pointermove", (event) => show(placeAt(event)));
  cursor.addEventListener("pointerdown", (event) => show(placeAt(event)));
  cursor.addEventListener("pointerleave", () => document.activeElement === cursor || hide());
  cursor.addEventListener("focus", () => show(place));
  cursor.addEventListener("blur", hide);
  cursor.addEventListener("keydown", (event) => {
    const far = Math.max(1, Math.round(steps.length / 10));
    const moves = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: far, PageDown: -far, Home: -Infinity, End: Infinity };
    if (event.key === "Escape") return hide();
    if (!(event.key in moves)) return;
    event.preventDefault();
    show(Math.min(steps.length - 1, Math.max(0, place + moves[event.key])));
  });

  function placeAt(event) {
    const box = cursor.getBoundingClientRect();
    return nearest(steps, chart.x[0] + ((event.clientX - box.left) / box.width) * (chart.x[1] - chart.x[0]));
  }

  function show(at) {
    place = at;
    const step = steps[at];
    const scale = document.querySelector("#log")?.checked && chart.scales.log ? "log" : "linear";
    const x = (step - chart.x[0]) / (chart.x[1] - chart.x[0]);
    const title = chart.xLabels.length ? chart.xLabels[step - 1] : `${chart.xName} ${step.toLocaleString("en")}`;
    const values = chart.series.map((one) => {
      const at = nearest(one.x, step);
      const near = step >= one.x[0] && step <= one.x[one.x.length - 1];
      return near ? { step: one.x[at], value: one.y[at] } : null;
    });
    rule.hidden = tip.hidden = false;
    rule.style.left = `${100 * x}%`;
    tip.replaceChildren();
    add(tip, "b").textContent = title;
    const spoken = [];
    chart.series.forEach((one, number) => {
      const found = values[number];
      const y = found && share(found.value, chart.scales[scale], scale === "log");
      dots[number].hidden = !found || !(y >= 0 && y <= 1);
      if (!found) return;
      dots[number].style.left = `${(100 * (found.step - chart.x[0])) / (chart.x[1] - chart.x[0])}%`;
      dots[number].style.top = `${100 * (1 - y)}%`;
      const row = add(tip, "div");
      add(row, "i", one.run);
      const close = Math.abs(found.step - step) < 0.01 * (chart.x[1] - chart.x[0]);
      row.append(close ? one.label : `${one.label} (${found.step.toLocaleString("en")})`);
      add(row, "span").textContent = write(found.value);
      spoken.push(`${one.label} ${write(found.value)}`);
    });
    const beside = x < 0.5 ? x * cursor.clientWidth + 12 : x * cursor.clientWidth - 12 - tip.offsetWidth;
    tip.style.left = `${Math.max(0, Math.min(beside, cursor.clientWidth - tip.offsetWidth))}px`;
    cursor.setAttribute("aria-valuenow", step);
    cursor.setAttribute("aria-valuetext", `${title}: ${spoken.join("; ")}`);
  }

  function hide() {
    rule.hidden = tip.hidden = true;
    for (const dot of dots) dot.hidden = true;
  }

  function write(value) {
    return chart.percent ? `${(100 * value).toFixed(2)} %` : Number(value.toPrecision(4)).toLocaleString("en", { maximumSignificantDigits: 4 });
  }
}

function add(parent, tag, name = "") {
  const child = document.createElement(tag);
  child.className = name;
  parent.append(child);
  return child;
}

function share(value, [low, high], log) {
  return log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
}

function nearest(sorted, value) {
  let low = 0;
  let high = sorted.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (sorted[middle] <= value) low = middle;
    else high = middle;
  }
  return Math.abs(sorted[high] - value) < Math.abs(sorted[low] - value) ? high : low;
}
