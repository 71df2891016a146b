package browser_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/internal/buildtest"
	"github.com/datafly/bridge/internal/kafkatest"
)

// patience is how long a test waits for something that should come at once.
const patience = await.Patience

var buildDir string // holds the binary

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	var err error
	if buildDir, err = os.MkdirTemp("", "bridge-browser-"); err != nil {
		fmt.Fprintln(os.Stderr, "browser: making a folder for the binary:", err)
		return 1
	}
	defer os.RemoveAll(buildDir)
	return kafkatest.Main(m)
}

// binary is the bridge, built once and as the tests are.
var binary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(buildDir, "bridge")
	var flags []string
	if buildtest.Race {
		flags = append(flags, "-race")
	}
	return path, buildtest.Build(context.Background(), path, flags...)
})

// program finds Chromium.
func program() (string, error) {
	if named := os.Getenv("CHROMIUM"); named != "" {
		return named, nil
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome-headless-shell", "headless-shell"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no Chromium: install it with tools/chromium.sh, or name it in CHROMIUM")
}

// chromium starts a browser for one test and ends it with the test; the context
// is that of its first tab.
func chromium(t *testing.T) context.Context {
	t.Helper()
	path, err := program()
	if err != nil {
		if os.Getenv("REQUIRE_CHROMIUM") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	opts := []chromedp.ExecAllocatorOption{chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()),
		chromedp.WindowSize(1360, 900), chromedp.WSURLReadTimeout(patience), chromedp.Flag("disable-dev-shm-usage", true)}
	if os.Getuid() == 0 {
		opts = append(opts, chromedp.NoSandbox) // Chromium's own rule for root
	}
	ctx, end := chromedp.NewContext(context.Background(), chromedp.WithAllocatorOptions(opts...), chromedp.WithErrorf(t.Logf))
	t.Cleanup(func() {
		closing, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		if err := chromedp.Cancel(closing); err != nil {
			t.Logf("closing the browser: %v", err)
		}
		end()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("starting %s: %v", path, err)
	}
	leaveUnsaved(ctx, t)
	return ctx
}

// leaveUnsaved answers a page that asks whether to leave its unsaved text.
func leaveUnsaved(ctx context.Context, t *testing.T) {
	t.Helper()
	asked := make(chan struct{}, 1)
	if err := chromedp.Listen(ctx, func(ev any) {
		if _, ok := ev.(*cdppage.EventJavascriptDialogOpening); ok {
			asked <- struct{}{} // one dialog is open at a time
		}
	}); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			select {
			case <-asked:
				// It fails if the tab has gone.
				_ = chromedp.Do(ctx, chromedp.Func(func(ctx context.Context, tab *chromedp.Target) error {
					_, err := cdp.Call(ctx, tab, cdppage.HandleJavaScriptDialog, cdppage.HandleJavaScriptDialogParams{Accept: true})
					return err
				}))
			case <-ctx.Done():
				return
			}
		}
	}()
}
