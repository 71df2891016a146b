package main

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/datafly/bridge/zerobus/emulator"
)

// The variant retail has a statement of its own: without its optional columns it is that
// of default.
func TestDDLOfRetail(t *testing.T) {
	plain, all := command("ddl", "--set", "mapping.variant=retail"), command("ddl", "--set", "mapping.variant=retail", "--optional")
	if want := command("ddl"); plain.stdout != want.stdout || plain.code != exitFine {
		t.Errorf("got exit code %d and\n%s%s\nwant\n%s", plain.code, plain.stdout, plain.stderr, want.stdout)
	}
	for _, column := range []string{"`order_id` STRING", "`revenue` DOUBLE", "`quantity` DOUBLE", "`items` STRING", "`search_query` STRING", "`page_title` STRING", "`event_timestamp` TIMESTAMP"} {
		if all.code != exitFine || strings.Count(all.stdout, "\n  "+column) != 1 {
			t.Errorf("got exit code %d and\n%s%s\nwant %s in it", all.code, all.stdout, all.stderr, column)
		}
	}
}

// The rescue column that ddl prints has its tag, and --alter prints what the live table
// lacks of it.
func TestDDLWithARescueColumn(t *testing.T) {
	const (
		column = "ALTER TABLE `datafly`.`events`.`stream` ADD COLUMNS (`rescue` VARIANT);\n"
		tag    = "ALTER TABLE `datafly`.`events`.`stream` ALTER COLUMN `rescue` SET TAGS ('zerobus-rescue' = '');\n"
		view   = "\nCREATE OR REPLACE VIEW `datafly`.`events`.`stream_deduplicated` AS\n"
	)
	got := command("ddl", "--rescue", "--dedupe-view")
	create, after, _ := strings.Cut(got.stdout, "\n) USING DELTA;\n")
	if got.code != exitFine || !strings.HasSuffix(create, ",\n  `rescue` VARIANT") || !strings.Contains(after, "\n\n"+tag+view) {
		t.Errorf("got exit code %d and\n%s%s", got.code, got.stdout, got.stderr)
	}
	if got := command("ddl"); strings.Contains(got.stdout, "rescue") {
		t.Errorf("without --rescue: got\n%s", got.stdout)
	}

	flags, workspace := settingsAnd(t)
	alter := func(want string, args ...string) {
		t.Helper()
		got := command(slices.Concat([]string{"ddl", "--alter"}, args, flags)...)
		if text, _, _ := strings.Cut(got.stdout, "SELECT"); got.code != exitFine || text != want {
			t.Errorf("%v: got exit code %d and\n%s%s\nwant\n%s", args, got.code, got.stdout, got.stderr, want)
		}
	}
	table := workspace.Table("datafly.events.stream")
	alter("")
	alter(column+tag, "--rescue")
	alter(column+tag+view, "--rescue", "--dedupe-view")
	alter(view, "--dedupe-view")
	if err := table.AddColumn(emulator.Column{Name: "rescue", Type: "VARIANT"}); err != nil {
		t.Fatal(err)
	}
	alter(tag, "--rescue")
	if err := table.SetColumnTags("rescue", "zerobus-rescue"); err != nil {
		t.Fatal(err)
	}
	alter("", "--rescue")
	// One is enough, whatever its name is.
	if err := table.SetColumnTags("rescue"); err != nil {
		t.Fatal(err)
	}
	if err := table.AddColumn(emulator.Column{Name: "others", Type: "VARIANT"}); err != nil {
		t.Fatal(err)
	}
	if err := table.SetColumnTags("others", "zerobus-rescue"); err != nil {
		t.Fatal(err)
	}
	alter("", "--rescue")
	// Whether there is one decides what is printed, so it must be known.
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, emulator.TagsPath) {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		workspace.Handler().ServeHTTP(w, r)
	}))
	defer front.Close()
	got = command(slices.Concat([]string{"ddl", "--alter", "--rescue", "--set", "zerobus.workspace_url=" + front.URL}, flags)...)
	if want := `whether datafly.events.stream has a rescue column is not known: read the tags of column "rescue": GET `; got.code != exitFailed || !strings.Contains(got.stderr, want) || !strings.Contains(got.stderr, ": HTTP 403; leave out --rescue") {
		t.Errorf("tags that may not be read: got exit code %d and %s%s, want %s", got.code, got.stdout, got.stderr, want)
	}
}
