package terminal

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// blockKind is the kind of a part of a page; there are those that our own pages use.
type blockKind int

const (
	blockText blockKind = iota // a paragraph or an item of a list
	blockHead
	blockCode
	blockRow // of a table
)

// block is one part of a page.
type block struct {
	kind  blockKind
	level int      // of a heading
	text  string   // of a paragraph, on one line; code with its line ends
	lead  string   // the mark and indent of an item
	cells []string // of a row
	heads []string // the table's
}

var item = regexp.MustCompile(`^(\s*)([-*]|\d+\.)\s+`)

// parseMarkdown reads a page of docs/: headings, paragraphs, lists, tables and
// fenced code.
func parseMarkdown(page string) []block {
	var out []block
	var heads []string
	open := false // the last block is text that the next line may continue
	lines := strings.Split(page, "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		trimmed := strings.TrimSpace(line)
		row := strings.HasPrefix(trimmed, "|")
		if !row {
			heads = nil
		}
		switch {
		case strings.HasPrefix(trimmed, "```"):
			var code strings.Builder
			for i++; i < len(lines) && !strings.HasPrefix(strings.TrimSpace(lines[i]), "```"); i++ {
				code.WriteString(lines[i] + "\n")
			}
			out, open = append(out, block{kind: blockCode, text: code.String()}), false
		case trimmed == "":
			open = false
		case strings.HasPrefix(line, "#"):
			text := strings.TrimLeft(line, "#")
			out, open = append(out, block{kind: blockHead, level: len(line) - len(text), text: strings.TrimSpace(text)}), false
		case row && heads == nil:
			heads, open = splitRow(trimmed), false
		case row && strings.Trim(trimmed, "|-: ") == "":
		case row:
			out = append(out, block{kind: blockRow, cells: splitRow(trimmed), heads: heads})
		case item.MatchString(line):
			lead := item.FindString(line)
			out, open = append(out, block{kind: blockText, lead: lead, text: strings.TrimSpace(line[len(lead):])}), true
		case open:
			out[len(out)-1].text += " " + trimmed
		default:
			out, open = append(out, block{kind: blockText, text: trimmed}), true
		}
	}
	return out
}

// splitRow splits a row at the bars that are not escaped.
func splitRow(row string) []string {
	const bar = "\x00"
	cells := strings.Split(strings.Trim(strings.ReplaceAll(row, `\|`, bar), "|"), "|")
	for i, c := range cells {
		cells[i] = strings.TrimSpace(strings.ReplaceAll(c, bar, "|"))
	}
	return cells
}

// matching returns the innermost sections whose heading contains the word, and the
// rows whose first cell does.
func matching(page []block, word string) []block {
	word = strings.ToLower(word)
	has := func(text string) bool { return strings.Contains(strings.ToLower(text), word) }
	var out []block
	level, below := 0, ""
	for _, b := range page {
		switch b.kind {
		case blockHead:
			if level == 0 || b.level <= level {
				level = 0
				if has(b.text) {
					level = b.level
				}
			}
			below = b.text
		case blockRow:
			if level == 0 && has(b.cells[0]) {
				if below != "" {
					out, below = append(out, block{kind: blockHead, level: 2, text: below}), ""
				}
				out = append(out, b)
			}
		}
		if level > 0 {
			out = append(out, b)
		}
	}
	return out
}

var (
	link  = regexp.MustCompile(`\[([^\]]+)\]\(([^)]+)\)`)
	bold  = regexp.MustCompile(`\*\*([^*]+)\*\*`)
	quote = regexp.MustCompile("`([^`]+)`")
)

// plain removes the marks of a text, except those of code.
func plain(text string) string {
	text = link.ReplaceAllStringFunc(text, func(l string) string {
		m := link.FindStringSubmatch(l)
		if strings.HasPrefix(m[2], "http") && m[1] != m[2] {
			return m[1] + " (" + m[2] + ")"
		}
		return m[1]
	})
	return bold.ReplaceAllString(text, "$1")
}

// maxColumns keeps lines readable in wide windows.
const maxColumns = 96

// Markdown returns a page as text of at most width columns. With a word, it returns
// the sections and rows whose name contains it; "" if there is none.
func Markdown(text, word string, width int, look Style) string {
	page := parseMarkdown(text)
	if word != "" {
		page = matching(page, word)
	}
	width = max(min(width, maxColumns), 20)
	var b strings.Builder
	for i, p := range page {
		tight := i > 0 && (p.lead != "" && page[i-1].lead != "")
		if i > 0 && !tight {
			b.WriteByte('\n')
		}
		switch p.kind {
		case blockHead:
			head := plain(p.text)
			if p.level == 1 {
				head = strings.ToUpper(head)
			}
			b.WriteString(look.Strong(head) + "\n")
		case blockCode:
			for line := range strings.Lines(p.text) {
				b.WriteString(strings.TrimRight("    "+line, " \n") + "\n")
			}
		case blockRow:
			b.WriteString(look.Strong(strings.ReplaceAll(plain(p.cells[0]), "`", "")) + "\n")
			for n, cell := range p.cells[1:] {
				if cell == "" || cell == "-" {
					continue
				}
				if len(p.cells) > 2 && n+1 < len(p.heads) {
					cell = p.heads[n+1] + ": " + cell
				}
				writeWrapped(&b, cell, "    ", "    ", width, look)
			}
		default:
			writeWrapped(&b, p.text, p.lead, strings.Repeat(" ", len(p.lead)), width, look)
		}
	}
	return b.String()
}

// writeWrapped breaks a text between words. Code in it is bold where there are
// colours.
func writeWrapped(b *strings.Builder, text, first, rest string, width int, look Style) {
	line, lead := "", first
	put := func() {
		if look.Colour {
			line = quote.ReplaceAllStringFunc(line, func(q string) string { return look.Strong(strings.Trim(q, "`")) })
		}
		fmt.Fprintf(b, "%s%s\n", lead, line)
		line, lead = "", rest
	}
	for _, word := range strings.Fields(plain(text)) {
		if line != "" && utf8.RuneCountInString(lead+line+word)+1 > width {
			put()
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	put()
}
