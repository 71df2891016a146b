package archtest_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// Every connection verifies its peer, even in tests. In the program none uses TLS
// below 1.2, no client follows redirects, and every server has timeouts.
func TestConnectionsAreGuarded(t *testing.T) {
	files := 0
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != root && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata"):
			return filepath.SkipDir
		case entry.IsDir() || !strings.HasSuffix(path, ".go"):
			return nil
		}
		files++
		for _, fault := range unguarded(t, path, nil) {
			t.Error(fault)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 100 {
		t.Errorf("looked at %d files, want all of the repository", files)
	}
}

// The rules themselves: each of these must be found.
func TestUnguardedConnectionsAreFound(t *testing.T) {
	for text, want := range map[string]string{
		`var _ = tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}`:    "InsecureSkipVerify",
		`func f(c *tls.Config) { c.InsecureSkipVerify = true }`:                         "InsecureSkipVerify",
		`var _ = &tls.Config{MinVersion: tls.VersionTLS12, VerifyPeerCertificate: nil}`: "VerifyPeerCertificate",
		`var _ = &tls.Config{}`:                             "MinVersion",
		`var _ = tls.Config{MinVersion: tls.VersionTLS11}`:  "MinVersion",
		`var _ = &http.Client{Transport: rt}`:               "CheckRedirect",
		`var _, _ = http.Get("http://x")`:                   "http.Get",
		`var c = http.DefaultClient`:                        "http.DefaultClient",
		`var t = http.DefaultTransport`:                     "http.DefaultTransport",
		`var _ = &http.Server{Handler: h}`:                  "ReadHeaderTimeout",
		`func f() { _ = http.ListenAndServe(":80", nil) }`:  "http.ListenAndServe",
		`func f() { b, _ := io.ReadAll(resp.Body); _ = b }`: "io.ReadAll",
		`var _ = credentials.NewClientTLSFromCert(nil, "")`: "credentials.NewClientTLSFromCert",
	} {
		if got := unguarded(t, "program.go", "package p\n"+text); len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("%s: got %q, want one fault of %s", text, got, want)
		}
	}
	for _, text := range []string{
		`var _ = &tls.Config{MinVersion: tls.VersionTLS12}`,
		`var _ = &tls.Config{MinVersion: tls.VersionTLS13}`,
		`var _ = &http.Client{CheckRedirect: no}`,
		`var _ = &http.Server{ReadTimeout: 1}`,
		`func f() { b, _ := io.ReadAll(io.LimitReader(resp.Body, 10)); _ = b }`,
	} {
		if got := unguarded(t, "program.go", "package p\n"+text); len(got) != 0 {
			t.Errorf("%s: got %q, want nothing", text, got)
		}
	}
	// Tests talk to servers of their own.
	if got := unguarded(t, "program_test.go", "package p\nvar _, _ = http.Get(\"http://x\")"); len(got) != 0 {
		t.Errorf("a test: got %q, want nothing", got)
	}
}

// Names that are forbidden everywhere, and in the program.
var (
	neverAnywhere = map[string]string{
		"InsecureSkipVerify":    "the peer would not be verified; name its certificate authority instead",
		"VerifyPeerCertificate": "the library verifies certificates",
		"VerifyConnection":      "the library verifies certificates",
	}
	neverInProgram = map[string]string{
		"http.Get": "follows redirects and has no timeout", "http.Post": "follows redirects and has no timeout",
		"http.PostForm": "follows redirects and has no timeout", "http.Head": "follows redirects and has no timeout",
		"http.DefaultClient": "follows redirects and has no timeout", "http.DefaultTransport": "can be changed by any package",
		"http.ListenAndServe": "has no timeouts", "http.Serve": "has no timeouts",
		"credentials.NewClientTLSFromCert": "leaves the least version to the library; use credentials.NewTLS",
		"credentials.NewClientTLSFromFile": "leaves the least version to the library; use credentials.NewTLS",
	}
)

// unguarded returns a line for every violation in one file; source is nil to read
// it from disk.
func unguarded(t *testing.T, path string, source any) (faults []string) {
	t.Helper()
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, source, parser.SkipObjectResolution)
	if err != nil {
		return nil // for the compiler to report
	}
	clean := filepath.ToSlash(path)
	test := strings.HasSuffix(path, "_test.go")
	// What is measured against, and made for tests, is no part of the program.
	program := !test && !strings.Contains(clean, "/bench/") && !strings.Contains(clean, "/internal/kafkatest/")
	if strings.HasSuffix(clean, "internal/archtest/tls_test.go") {
		return nil // names them all
	}
	report := func(n ast.Node, format string, args ...any) {
		faults = append(faults, fmt.Sprintf("%s: %s", set.Position(n.Pos()), fmt.Sprintf(format, args...)))
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			name := dotted(n)
			if why, bad := neverAnywhere[n.Sel.Name]; bad {
				report(n, "%s: %s", n.Sel.Name, why)
			} else if why, bad := neverInProgram[name]; bad && program {
				report(n, "%s %s", name, why)
			}
		case *ast.KeyValueExpr:
			if key, ok := n.Key.(*ast.Ident); ok {
				if why, bad := neverAnywhere[key.Name]; bad {
					report(n, "%s: %s", key.Name, why)
				}
			}
		case *ast.CallExpr:
			if program && dotted(n.Fun) == "io.ReadAll" && len(n.Args) == 1 {
				if name := dotted(n.Args[0]); strings.HasSuffix(name, ".Body") && !strings.Contains(clean, "/zerobus/emulator/") {
					report(n, "io.ReadAll of %s has no bound; put an io.LimitReader around it", name)
				}
			}
		case *ast.CompositeLit:
			fields := literalFields(n)
			switch dotted(n.Type) {
			case "tls.Config":
				if least := dotted(fields["MinVersion"]); program && least != "tls.VersionTLS12" && least != "tls.VersionTLS13" {
					report(n, "a tls.Config whose MinVersion is not tls.VersionTLS12 or tls.VersionTLS13")
				}
			case "http.Client":
				if program && fields["CheckRedirect"] == nil {
					report(n, "an http.Client without CheckRedirect follows redirects with what it carries")
				}
			case "http.Server":
				if program && fields["ReadHeaderTimeout"] == nil && fields["ReadTimeout"] == nil {
					report(n, "an http.Server without ReadHeaderTimeout or ReadTimeout has no timeout")
				}
			}
		}
		return true
	})
	return faults
}

// dotted returns a name as it is written, package and all; "" for what is no name.
func dotted(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		if x := dotted(e.X); x != "" {
			return x + "." + e.Sel.Name
		}
	}
	return ""
}

func literalFields(n *ast.CompositeLit) map[string]ast.Expr {
	fields := map[string]ast.Expr{}
	for _, e := range n.Elts {
		if pair, ok := e.(*ast.KeyValueExpr); ok {
			if key, ok := pair.Key.(*ast.Ident); ok {
				fields[key.Name] = pair.Value
			}
		}
	}
	return fields
}
