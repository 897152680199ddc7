// Fills the panel with its figure. plotly measures its place before the page has given it one, and measures again only
// when the window says that it was resized; until the first fit the figure stays hidden, so that nothing jumps.

function render({ el }) {
  const fit = () => window.dispatchEvent(new Event("resize"));
  const resized = new ResizeObserver(fit);
  let frame = requestAnimationFrame(function attach() {
    const panel = el.closest(".ci-panel");
    if (!panel?.querySelector(".ci-figure .main-svg")) {
      frame = requestAnimationFrame(attach);
      return;
    }
    resized.observe(panel);
    fit();
    const until = performance.now() + 1500;
    frame = requestAnimationFrame(function show() {
      const gap = panel.clientHeight - panel.querySelector(".ci-figure .svg-container").clientHeight;
      if (gap < 8 || performance.now() > until) panel.classList.add("ci-fitted");
      else frame = requestAnimationFrame(show);
    });
  });
  return () => {
    cancelAnimationFrame(frame);
    resized.disconnect();
  };
}

export default { render };
