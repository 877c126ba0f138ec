// The rendered rows of a long list: the visible ones, and a few around them.
import {
  elementScroll,
  observeElementOffset,
  observeElementRect,
  type VirtualItem,
  Virtualizer,
} from '@tanstack/virtual-core';

export class VirtualRows {
  items = $state.raw<VirtualItem[]>([]);
  height = $state(0);
  /**
   * The number of DOM rows. A row's index modulo this is its slot. A row that scrolls into view reuses the elements of a
   * row that scrolled out, because creating elements for every row takes longer than a frame.
   */
  slots = $state(1);
  #virtualizer: Virtualizer<HTMLElement, HTMLElement>;

  /** Create it in a component. `box` scrolls `count` rows with a height of `rowHeight` pixels each. */
  constructor(box: () => HTMLElement | undefined, count: () => number, rowHeight: number) {
    const options = {
      count: 0,
      getScrollElement: () => box() ?? null,
      estimateSize: () => rowHeight,
      overscan: 6,
      scrollToFn: elementScroll,
      observeElementRect,
      observeElementOffset,
      onChange: () => this.#update(),
    };
    const virtualizer = new Virtualizer<HTMLElement, HTMLElement>(options);
    this.#virtualizer = virtualizer;
    $effect(() => {
      if (!box()) return;
      const unmount = virtualizer._didMount();
      virtualizer._willUpdate();
      return unmount;
    });
    $effect(() => {
      virtualizer.setOptions({ ...options, count: count() });
      virtualizer._willUpdate();
      this.#update();
    });
  }

  /** Scrolls a row into view. */
  scrollTo(index: number): void {
    this.#virtualizer.scrollToIndex(index, { align: 'auto' });
    this.#update();
  }

  #update(): void {
    const items = this.#virtualizer.getVirtualItems();
    if (items.length > this.slots) this.slots = items.length;
    this.items = items;
    this.height = this.#virtualizer.getTotalSize();
  }
}
