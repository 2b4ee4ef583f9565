/* Tells the site by which clock its reader lives: no header does. */

const { timeZone } = Intl.DateTimeFormat().resolvedOptions();
const said = /^[\w+-]+(\/[\w+-]+)*$/.test(timeZone ?? "") && `zone=${timeZone}`;
if (said && !document.cookie.split("; ").includes(said)) {
  const secure = location.protocol === "https:" ? "; secure" : "";
  document.cookie = `${said}; path=/; max-age=31536000; samesite=lax${secure}`;
}
