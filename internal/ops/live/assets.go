package live

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"time"
)

//go:embed assets
var files embed.FS

// assets are the files of the page by name, each with a tag of its content.
var assets = load()

type asset struct {
	content []byte
	tag     string
}

func load() map[string]asset {
	all := map[string]asset{}
	// The files are part of the program: a failure is impossible.
	_ = fs.WalkDir(files, "assets", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(content)
		all[path.Base(name)] = asset{content, `"` + hex.EncodeToString(sum[:8]) + `"`}
		return nil
	})
	return all
}

var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

func (p *Page) servePage(w http.ResponseWriter, r *http.Request) { writeAsset(w, r, "page.html") }

// serveAsset needs no token: the files hold nothing of this bridge.
func (p *Page) serveAsset(w http.ResponseWriter, r *http.Request) {
	writeAsset(w, r, r.PathValue("name"))
}

// writeAsset lets browsers keep a file and ask each time whether it is the same.
func writeAsset(w http.ResponseWriter, r *http.Request, name string) {
	a, ok := assets[name]
	if !ok {
		fail(w, http.StatusNotFound, "there is no such file")
		return
	}
	w.Header().Set("Content-Type", contentTypes[path.Ext(name)])
	if path.Ext(name) != ".html" {
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Set("ETag", a.tag)
	}
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(a.content))
}
