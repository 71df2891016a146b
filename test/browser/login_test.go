package browser_test

import (
	"testing"

	"github.com/datafly/bridge/internal/ops/access"
)

// People sign in with a token and go where they wanted to. Each port has its own session.
func TestConsoleLogin(t *testing.T) {
	tokens := func(token string) (access.Identity, error) {
		switch token {
		case "token-of-vic":
			return access.Identity{Name: "vic", Role: access.Viewer}, nil
		case "old":
			return access.Identity{}, access.ErrExpired
		}
		return access.Identity{}, access.ErrUnknown
	}
	answers := map[string]any{"/live/summary": several(), "/live/members": membersAnswer()}
	one, two := serveFixture(t, access.NewControl(tokens, access.Identity{}, false), true, answers), serveFixture(t, access.NewControl(tokens, access.Identity{}, false), false, answers)
	p := &page{t: t, ctx: chromium(t), s: &stage{t: t, address: one.address()}}
	p.watched()
	p.inspect("/login?why=wrong", "document.querySelector('#wrong').innerText")
	p.look(1440, 900, "light")
	login := func(token string) {
		t.Helper()
		p.until("document.activeElement.id === 'token'")
		p.keys(token + "\r")
	}
	p.visit("/members?x=1")
	p.until("location.pathname === '/login'")
	login("wrong")
	p.text("#wrong", "not a valid token")
	login("old")
	p.text("#wrong", "has expired")
	login("token-of-vic")
	p.until("location.pathname + location.search === '/members?x=1' && document.querySelector('main article')")
	p.text("header", "vic, viewer")
	p.visit("/login")
	p.until("location.pathname === '/' && document.querySelector('main tr[data-row]')")
	if p.is("document.cookie !== ''") {
		t.Error("a script can read the session")
	}

	p.s.address = two.address()
	p.visit("/")
	login("token-of-vic")
	p.text("main", "orders-eu")
	p.click("header form button")
	p.until("location.pathname === '/login'")
	p.s.address = one.address()
	p.visit("/")
	p.text("main", "orders-eu")

	// A session that ends leads to the form, and back.
	p.do("document.querySelector('header form').requestSubmit()")
	p.until("location.pathname === '/login'")
	p.do("history.back()")
	p.until("location.pathname === '/login'")
	login("token-of-vic")
	p.text("main", "orders-eu")
	p.quiet("login")
}
