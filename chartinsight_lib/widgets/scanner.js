// The scanner's table: all rows in memory, only those in view in the page. Sorting and searching need no kernel.
// Everything from the data goes through textContent or title: a name can hold any character.

const ROW = 24;
const SPARE = 8; // rows drawn beyond the edges, so that scrolling shows no holes

function element(tag, className, attributes = {}) {
  const made = document.createElement(tag);
  made.className = className;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function render({ model, el }) {
  let columns = [], rows = {}, shown = [], sort = null, down = true, wait = null;

  const bar = element("div", "ci-search");
  const input = element("input", "", {
    type: "search", placeholder: "Search code or name  ( / )", "aria-label": "Search code or name", spellcheck: "false",
  });
  const count = element("span", "ci-count", { "aria-live": "polite" });
  bar.append(input, count);
  const grid = element("div", "ci-grid", { role: "grid", tabindex: "0", "aria-label": "Instruments" });
  const head = element("div", "ci-row ci-head", { role: "row" });
  const body = element("div", "ci-body", { role: "presentation" });
  grid.append(head, body);
  el.classList.add("ci-scanner");
  el.replaceChildren(bar, grid);

  function take() {
    ({ columns, rows } = model.get("table"));
    if (!columns.some((column) => column.key === sort)) {
      sort = model.get("sort_by");
      down = true;
    }
    el.dataset.habit = model.get("habit");
    grid.style.setProperty("--ci-columns", columns.map((column) => column.width).join(" "));
    arrange();
  }

  function arrange() {
    const wanted = input.value.trim().toLocaleLowerCase();
    const total = rows.id.length;
    shown = [];
    for (let i = 0; i < total; i++) if (!wanted || rows.search[i].includes(wanted)) shown.push(i);
    const keys = rows.sort[sort];
    const sign = down ? -1 : 1;
    // A missing number stands last either way; equal ones keep the order of the codes.
    shown.sort((a, b) => {
      const x = keys[a], y = keys[b];
      if (x === null || y === null) return (x === null) - (y === null) || a - b;
      return x === y ? a - b : x < y ? -sign : sign;
    });
    count.textContent = wanted ? `${shown.length.toLocaleString("en")} of ${total.toLocaleString("en")}` : total.toLocaleString("en");
    grid.setAttribute("aria-rowcount", shown.length + 1);
    drawHead();
    draw();
  }

  function drawHead() {
    head.replaceChildren(...columns.map((column) => {
      const cell = element("button", `ci-cell ci-${column.kind}`, { role: "columnheader", title: column.title, tabindex: "-1" });
      const active = column.key === sort;
      cell.textContent = column.label;
      if (active) cell.dataset.sorted = down ? "down" : "up";
      cell.setAttribute("aria-sort", active ? (down ? "descending" : "ascending") : "none");
      cell.onclick = () => {
        // Words begin at A, numbers at the largest.
        down = active ? !down : column.kind !== "text";
        sort = column.key;
        arrange();
        grid.scrollTop = 0;
        grid.focus();
      };
      return cell;
    }));
  }

  function draw() {
    const first = Math.max(0, Math.floor(grid.scrollTop / ROW) - SPARE);
    const last = Math.min(shown.length, first + Math.ceil((grid.clientHeight || 600) / ROW) + 2 * SPARE);
    const selected = model.get("selected");
    body.style.height = `${shown.length * ROW}px`;
    const lines = [];
    for (let position = first; position < last; position++) lines.push(line(position, selected));
    if (!shown.length) {
      const none = element("div", "ci-none");
      none.textContent = rows.id.length ? "Nothing matches the search." : "No rows.";
      lines.push(none);
    }
    body.replaceChildren(...lines);
  }

  function line(position, selected) {
    const i = shown[position];
    const chosen = rows.id[i] === selected;
    const row = element("div", chosen ? "ci-row ci-chosen" : "ci-row", {
      role: "row", "aria-selected": chosen, "aria-rowindex": position + 2, "data-code": rows.text.code[i],
    });
    row.style.transform = `translateY(${position * ROW}px)`;
    row.onclick = () => choose(position, 0);
    for (const column of columns) {
      const cell = element("div", `ci-cell ci-${column.kind}`, { role: "gridcell" });
      cell.textContent = rows.text[column.key][i];
      if (column.tone) {
        const value = rows.sort[column.tone][i];
        if (value) cell.classList.add(value > 0 ? "ci-up" : "ci-down");
      }
      const hint = rows.hints[column.key]?.[i];
      if (hint) {
        if (column.kind === "number") cell.classList.add("ci-hint");
        cell.title = hint;
      } else if (column.kind === "text") {
        cell.title = cell.textContent;
      }
      row.append(cell);
    }
    return row;
  }

  function choose(position, delay) {
    if (!shown.length) return;
    position = Math.min(Math.max(position, 0), shown.length - 1);
    model.set("selected", rows.id[shown[position]]);
    const top = position * ROW, room = grid.clientHeight - head.offsetHeight;
    if (top < grid.scrollTop) grid.scrollTop = top;
    else if (top + ROW > grid.scrollTop + room) grid.scrollTop = top + ROW - room;
    draw();
    // A key that is held down runs through the rows; the chart follows when it rests.
    clearTimeout(wait);
    wait = setTimeout(() => model.save_changes(), delay);
  }

  function key(event) {
    const at = shown.findIndex((i) => rows.id[i] === model.get("selected"));
    const page = Math.max(1, Math.floor(grid.clientHeight / ROW) - 2);
    const typing = event.target === input;
    const steps = { ArrowDown: at + 1, ArrowUp: at < 0 ? 0 : at - 1, PageDown: at + page, PageUp: at - page };
    if (!typing) Object.assign(steps, { Home: 0, End: shown.length - 1 });
    if (event.key in steps) {
      choose(steps[event.key], event.repeat ? 90 : 0);
    } else if (event.key === "Enter" && typing) {
      choose(Math.max(at, 0), 0);
      grid.focus();
    } else if (event.key === "Escape" && typing) {
      input.value = "";
      arrange();
      grid.focus();
    } else if (event.key === "/" && !typing) {
      input.focus();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  input.addEventListener("input", () => { grid.scrollTop = 0; arrange(); });
  el.addEventListener("keydown", key);
  grid.addEventListener("scroll", draw, { passive: true });
  const resized = new ResizeObserver(draw);
  resized.observe(grid);
  model.on("change:table", take);
  model.on("change:selected", draw);
  take();

  return () => {
    clearTimeout(wait);
    resized.disconnect();
    model.off("change:table", take);
    model.off("change:selected", draw);
  };
}

export default { render };
