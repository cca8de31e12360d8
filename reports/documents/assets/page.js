// What a word means, beside it while it is pointed at, tapped or in focus; where a section that is jumped to begins; on
// paper what is folded stands open.
// Without script a word has the browser's own tooltip, and all of them stand at the page's end.
"use strict";
(() => {
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.hidden = true;
  tip.role = "tooltip";
  document.body.append(tip);
  for (const word of document.querySelectorAll("dfn[title]")) {
    word.dataset.meaning = word.title;
    word.ariaDescription = word.title;
    word.removeAttribute("title");
  }
  const hide = () => { tip.hidden = true; };
  const show = ({ target }) => {
    const word = target instanceof Element && target.closest("dfn[data-meaning]");
    if (!word) return hide();
    tip.textContent = word.dataset.meaning;
    tip.hidden = false;
    const at = word.getBoundingClientRect(), { offsetWidth: width, offsetHeight: height } = tip, edge = 8;
    const below = at.bottom + edge + height < innerHeight;
    tip.style.left = `${Math.max(edge, Math.min(at.left, document.documentElement.clientWidth - width - edge))}px`;
    tip.style.top = `${below ? at.bottom + 4 : at.top - height - 4}px`;
  };
  for (const event of ["pointerover", "focusin", "click"]) document.addEventListener(event, show);
  addEventListener("keydown", ({ key }) => { if (key === "Escape") hide(); });
  addEventListener("scroll", hide, { capture: true, passive: true });
  addEventListener("focusout", hide);

  // A section that is jumped to begins below what stays at the top.
  new ResizeObserver(([{ target }]) => {
    document.documentElement.style.scrollPaddingTop = `${target.offsetHeight}px`;
  }).observe(document.querySelector(".top"));

  const folded = document.querySelectorAll("details.folded:not([open])");
  addEventListener("beforeprint", () => folded.forEach((part) => { part.open = true; }));
  addEventListener("afterprint", () => folded.forEach((part) => { part.open = false; }));
})();
