// Modules that are read when they are needed, and faults that stay where they are.

import { html, useEffect, useErrorBoundary, useState } from "./preact.js";
import { Failure, Loading } from "./ui.js";

// later returns a component whose module is read when it is needed first.
export function later(load) {
  let module = null;
  return function Later(props) {
    const [state, setState] = useState({ module, error: null });
    const read = () => load().then((m) => { module = m; setState({ module, error: null }); }, (error) => setState({ module: null, error }));
    useEffect(() => { if (!module) read(); }, []);
    if (state.error) return html`<${Failure} error=${state.error} what="This part of the page could not be loaded" retry=${() => location.reload()} />`;
    return state.module ? html`<${Guard}><${state.module.default} ...${props} /><//>` : html`<${Loading} what="the page" />`;
  };
}

// Guard shows a fault of a component in its place; the rest of the page stays.
export function Guard({ children }) {
  const [error, reset] = useErrorBoundary((e) => console.error(e));
  return error ? html`<${Failure} error=${error} what="This part of the page has a fault; please report it" retry=${reset} />` : children;
}
