// The current path and query. The query holds the whole state of a page, so reload, back and shared links work.

type QueryChanges = Record<string, string | readonly string[] | undefined>;

class Router {
  path = $state(location.pathname);
  search = $state(location.search);
  /** Counts navigations to another path, so that the focus can follow. */
  navigations = $state(0);
  readonly query = $derived(new URLSearchParams(this.search));

  constructor() {
    addEventListener('popstate', () => this.#read());
    document.addEventListener('click', (event) => this.#followLink(event));
  }

  navigate(href: string, replace = false): void {
    const before = this.path;
    if (replace) history.replaceState(null, '', href);
    else history.pushState(null, '', href);
    this.#read();
    if (this.path !== before) {
      scrollTo(0, 0);
      this.navigations += 1;
    }
  }

  get(name: string): string | undefined {
    return this.query.get(name) ?? undefined;
  }

  getAll(name: string): string[] {
    return this.query.getAll(name);
  }

  /** The address of this page with changed query parameters; undefined or an empty list removes a parameter. */
  hrefWith(changes: QueryChanges): string {
    const query = new URLSearchParams(this.search);
    for (const [name, value] of Object.entries(changes)) {
      query.delete(name);
      if (value === undefined) continue;
      for (const one of typeof value === 'string' ? [value] : value) query.append(name, one);
    }
    return `${this.path}${formatQuery(query)}`;
  }

  setQuery(changes: QueryChanges, replace = false): void {
    this.navigate(this.hrefWith(changes), replace);
  }

  #read(): void {
    this.path = location.pathname;
    this.search = location.search;
  }

  #followLink(event: MouseEvent): void {
    if (event.defaultPrevented || event.button !== 0) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = (event.target as Element | null)?.closest?.('a[href]');
    if (!(link instanceof HTMLAnchorElement) || link.target || link.hasAttribute('download')) return;
    const { origin, pathname, search } = new URL(link.href);
    if (origin !== location.origin || link.getAttribute('href')?.startsWith('#') || isServedByHost(pathname)) return;
    event.preventDefault();
    this.navigate(pathname + search);
  }
}

/** Whether the host answers this path itself. */
function isServedByHost(path: string): boolean {
  return path.startsWith('/api/') || ['/metrics', '/readyz', '/livez', '/healthz'].includes(path);
}

/** `?from=now-1h&filter=kind=boot`: readable, because people share these addresses. */
export function formatQuery(query: URLSearchParams): string {
  const text = query.toString().replace(/%3A/gi, ':').replace(/%2C/gi, ',').replace(/%3D/gi, '=');
  return text ? `?${text}` : '';
}

export const router = new Router();
