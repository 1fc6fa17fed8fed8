// What the theme leaves out: whatever scrolls sideways can be reached by the keyboard, and that has a name of its own, as
// have the buttons of each code block. The theme changes a page while it loads and when it is resized; so does this.
const improve = () => {
  document.querySelectorAll("nav.md-code__nav").forEach((nav, i) => nav.setAttribute("aria-label", `Code ${i + 1}, copy`));
  const names = { code: "Code", div: "Table" };
  const counts = {};
  document.querySelectorAll("pre > code, .md-typeset__scrollwrap").forEach((box) => {
    const kind = box.localName;
    counts[kind] = (counts[kind] || 0) + 1;
    if (box.scrollWidth <= box.clientWidth) return;
    if (box.tabIndex < 0) box.tabIndex = 0;
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", `${names[kind]} ${counts[kind]}, scrolls sideways`);
  });
};
let due = 0;
const soon = () => {
  cancelAnimationFrame(due);
  due = requestAnimationFrame(improve);
};
new MutationObserver(soon).observe(document.body, { childList: true, subtree: true });
addEventListener("resize", soon);
addEventListener("load", soon);
