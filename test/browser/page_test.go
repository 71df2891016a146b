package browser_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/datafly/bridge/internal/await"
)

// page is a tab of the browser on a bridge.
type page struct {
	t   *testing.T
	ctx context.Context
	s   *stage
}

func (p *page) run(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		p.t.Fatalf("in the browser: %v", err)
	}
}

// open goes to the page of the integration and waits for its verdict.
func (p *page) open() {
	p.t.Helper()
	p.visit("/integrations/default")
	p.until("document.querySelector('#verdict') && document.querySelector('#events, #main .empty')")
}

// tab goes to a view of the integration.
func (p *page) tab(name string) {
	p.t.Helper()
	link := fmt.Sprintf("[...document.querySelectorAll('.tabs a')].find(a => a.textContent.startsWith(%s))", quote(name))
	p.until(link)
	p.do(link + ".click()")
	p.until(link + "?.ariaCurrent === 'page'")
}

func (p *page) visit(path string) {
	p.t.Helper()
	p.run(chromedp.Navigate("http://" + p.s.address + path))
}

// js evaluates an expression and returns what it yields.
func js[T any](p *page, expression string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		p.t.Fatalf("in the browser: %s: %v", expression, err)
	}
	return v
}

// do evaluates an expression for its effect.
func (p *page) do(expression string) {
	p.t.Helper()
	js[bool](p, "("+expression+", true)")
}

// is reports whether an expression holds.
func (p *page) is(expression string) bool {
	p.t.Helper()
	return js[bool](p, "Boolean("+expression+")")
}

// holds is is for a page that may be on its way to another.
func (p *page) holds(expression string) bool {
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	yes, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("Boolean("+expression+")"))
	return err == nil && yes
}

// until waits for an expression to hold.
func (p *page) until(expression string) {
	p.t.Helper()
	await.That(p.t, expression, func() bool { return p.holds(expression) }, func() string { return fmt.Sprintf("the page shows:\n%.3000s", p.all()) })
}

// text waits until an element shows a text.
func (p *page) text(selector, want string) {
	p.t.Helper()
	p.until(fmt.Sprintf("(document.querySelector(%s)?.innerText || '').includes(%s)", quote(selector), quote(want)))
}

// all is the text of the page as people see it.
func (p *page) all() string {
	p.t.Helper()
	return js[string](p, "document.body.innerText")
}

func (p *page) click(selector string) {
	p.t.Helper()
	p.until(fmt.Sprintf("document.querySelector(%s)", quote(selector)))
	p.do(fmt.Sprintf("document.querySelector(%s).click()", quote(selector)))
}

// hover moves the mouse onto an element.
func (p *page) hover(selector string) {
	p.t.Helper()
	p.until(fmt.Sprintf("document.querySelector(%s)", quote(selector)))
	at := js[[]float64](p, fmt.Sprintf("(() => { const b = document.querySelector(%s).getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()", quote(selector)))
	p.run(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, input.DispatchMouseEvent, input.DispatchMouseEventParams{Type: "mouseMoved", X: at[0], Y: at[1]})
		return err
	}))
}

// keys presses one key after the other, as a keyboard does: what a key types
// hangs on its press, so that a page can prevent it.
func (p *page) keys(text string) {
	p.t.Helper()
	p.run(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		for _, r := range text {
			all := kb.Encode(r)
			down, up := *all[0], *all[len(all)-1]
			if len(all) == 3 {
				down.Text, down.UnmodifiedText = all[1].Text, all[1].UnmodifiedText
			}
			for _, k := range []input.DispatchKeyEventParams{down, up} {
				if _, err := cdp.Call(ctx, t, input.DispatchKeyEvent, k); err != nil {
					return err
				}
			}
		}
		return nil
	}))
}

// row waits for the row of an event that shows all these texts.
func (p *page) row(texts ...string) {
	p.t.Helper()
	p.until("(" + rowWith(texts...) + ")")
}

// rowWith is an expression for the first row that shows all these texts.
func rowWith(texts ...string) string {
	list, _ := json.Marshal(texts) // strings can always be written
	return fmt.Sprintf("[...document.querySelectorAll('#events tr[data-row]')].find(r => %s.every(t => r.innerText.includes(t)))", list)
}

func (p *page) openRow(texts ...string) {
	p.t.Helper()
	p.row(texts...)
	p.do(rowWith(texts...) + ".querySelector('a.row').click()")
	p.until("document.querySelector('#detail .facts') && (document.querySelector('#hidden') || document.querySelector('#detail pre'))")
}

// back leaves the event that is open.
func (p *page) back() {
	p.t.Helper()
	p.click("#back")
	p.until("document.querySelector('#events tr[data-row]')")
	p.do("document.activeElement.blur()")
}

// listed are the names of the events that are shown.
func (p *page) listed() []string {
	p.t.Helper()
	return js[[]string](p, "[...document.querySelectorAll('#events a.row')].map(a => a.innerText)")
}

// look sets the window and the colours the system asks for.
func (p *page) look(width, height int64, scheme string) {
	p.t.Helper()
	p.run(chromedp.EmulateViewport(width, height),
		chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
			_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
			return err
		}))
}

// picture takes one of the window when pictures are wanted.
func (p *page) picture(name string) {
	p.t.Helper()
	dir := os.Getenv("BRIDGE_SCREENSHOTS")
	if dir == "" {
		return
	}
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Fatalf("taking the picture %s: %v", name, err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
		p.t.Fatal(err)
	}
}

const escape = kb.Escape

func quote(text string) string {
	q, _ := json.Marshal(text) // a string can always be written
	return strings.ReplaceAll(string(q), "\u2028", `\u2028`)
}
