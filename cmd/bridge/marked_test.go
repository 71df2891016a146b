package main

import (
	"bytes"
	"encoding/binary"
	"os"
	"strings"
	"testing"
	"unicode/utf16"
)

// Editors on Windows begin a file with a byte order mark, or write UTF-16. Every
// text file a command reads may be such a file.
func TestTextFilesMayBeMarked(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("BRIDGE_KAFKA_TOPICS", "")
	write := func(name, text string) {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	blueprint := "version: 2\nglobal:\n  mappings:\n    - {source: a, target: a}\n"
	cases := "blueprint: shop.yaml\ntests:\n  - {event: {a: x}, row: {a: x}}\n"
	for name, as := range map[string]func(string) string{
		"UTF-8":  func(s string) string { return "\ufeff" + s },
		"UTF-16": wide,
	} {
		write("shop.yaml", as(blueprint))
		write("shop.test.yaml", as(cases))
		write("config.yaml", as("mapping: {blueprint: shop.yaml}\n"))
		write("one.json", as("{\n  \"a\": \"x\"\n}\n"))
		write("lines.ndjson", as("{\"a\":\"x\"}\r\n{\"a\":\"x\"}\r\n"))
		for _, tc := range []struct{ args, want string }{
			{"blueprint validate shop.yaml", "shop.yaml"},
			{"blueprint test shop.yaml", "1 "},
			{"map --blueprint shop.yaml one.json", "{\"a\":\"x\"}\n"},
			{"map lines.ndjson", "{\"a\":\"x\"}\n{\"a\":\"x\"}\n"}, // with the blueprint of config.yaml
		} {
			if got := runFine(t, strings.Fields(tc.args)...); !strings.Contains(got, tc.want) {
				t.Errorf("%s: bridge %s: got %q, want %q in it", name, tc.args, got, tc.want)
			}
		}
	}
}

// wide is text in UTF-16 as Windows writes it.
func wide(text string) string {
	var b bytes.Buffer
	for _, u := range append([]uint16{0xfeff}, utf16.Encode([]rune(text))...) {
		_ = binary.Write(&b, binary.LittleEndian, u) // a buffer takes everything
	}
	return b.String()
}
