// Has no face: tells the kernel that somebody looks at the page, when it opens and every ten seconds while it is in view. The
// kernel may have prepared the page hours ago.

const LOOK_AGAIN_MS = 10_000;

function render({ model, el }) {
  el.style.display = "none";
  const look = () => { if (!document.hidden) model.send({ kind: "look" }); };
  look();
  const timer = setInterval(look, LOOK_AGAIN_MS);
  document.addEventListener("visibilitychange", look);
  return () => {
    clearInterval(timer);
    document.removeEventListener("visibilitychange", look);
  };
}

export default { render };
