package kafka

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kgo"
)

// frame compresses text as a producer does.
func frame(t testing.TB, text []byte, options ...lz4.Option) []byte {
	t.Helper()
	var b bytes.Buffer
	w := lz4.NewWriter(&b)
	if err := w.Apply(options...); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// events returns text that compresses about as events do.
func events(n int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, `{"type":"track","event":"Product Viewed","messageId":"%08x","context":{"page":{"url":"https://shop.example/p/%d"},"ip":"203.0.113.7"}}`, rand.Uint32(), i)
	}
	return b.Bytes()[:n]
}

func noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

func TestUnlz4ReadsWhatProducersWrite(t *testing.T) {
	for _, tc := range []struct {
		name    string
		text    []byte
		options []lz4.Option
	}{
		{"nothing", nil, nil},
		{"a byte", []byte{7}, nil},
		{"franz-go", events(200_000), nil},
		{"java: 64 KiB blocks, no checksum", events(200_000), []lz4.Option{lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(false)}},
		{"librdkafka: the size is given", events(200_000), []lz4.Option{lz4.SizeOption(200_000), lz4.ChecksumOption(false)}},
		{"checksums of blocks", events(200_000), []lz4.Option{lz4.BlockChecksumOption(true)}},
		{"what cannot be compressed", noise(200_000), nil},
		{"what is compressed 250 to 1", make([]byte, 5_000_000), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, ok := unlz4(frame(t, tc.text, tc.options...), len(tc.text))
			if !ok || !bytes.Equal(got, tc.text) {
				t.Fatalf("got %d bytes, %t; want the %d compressed ones", len(got), ok, len(tc.text))
			}
		})
	}
}

// Everything else is the client's own decompressor's to read or to refuse.
func TestUnlz4LeavesOtherFrames(t *testing.T) {
	text := events(100_000)
	good := frame(t, text)
	changed := func(at int, to byte) []byte {
		b := bytes.Clone(good)
		b[at] = to
		return b
	}
	for name, src := range map[string][]byte{
		"nothing":             nil,
		"another magic":       changed(0, 0),
		"dependent blocks":    changed(4, good[4]&^0b0010_0000),
		"a dictionary":        changed(4, good[4]|1),
		"another version":     changed(4, good[4]|0b1000_0000),
		"unknown block size":  changed(5, 0b0011_0000),
		"the size is missing": frame(t, text, lz4.SizeOption(100_000))[:12],
		"two frames":          append(bytes.Clone(good), good...),
		"the end is missing":  good[:len(good)-10],
	} {
		if got, ok := unlz4(src, len(text)); ok {
			t.Errorf("%s: %d bytes were read", name, len(got))
		}
	}
	if _, ok := unlz4(good, len(text)-1); ok {
		t.Error("a batch beyond the bound was read")
	}
	// Two blocks of half its size each: the bound is the frame's, not a block's.
	if _, ok := unlz4(frame(t, text, lz4.BlockSizeOption(lz4.Block64Kb)), 70_000); ok {
		t.Error("blocks beyond the bound were read")
	}
}

// A small block that is damaged is no reason to make room for the largest one.
func TestUnlz4MakesRoomForWhatABlockMayHold(t *testing.T) {
	damaged := []byte{0x04, 0x22, 0x4d, 0x18, 0b0110_0000, 0b0111_0000, 0, 1, 0, 0, 0, 0xf0, 0, 0, 0, 0} // of blocks of 4 MiB
	unlz4(damaged, 1<<20)
	if allocs := testing.AllocsPerRun(10, func() {
		if _, ok := unlz4(damaged, 1<<20); ok {
			t.Error("it was read")
		}
	}); allocs > 10 {
		t.Errorf("got %.0f allocations, each of twice as much, want those for 255 bytes", allocs)
	}
}

func TestDecompressReadsEveryLZ4Frame(t *testing.T) {
	f := newLimiter(t, 1<<20)
	text := events(100_000)
	two := append(frame(t, text[:60_000]), frame(t, text[60_000:])...)
	for name, src := range map[string][]byte{"one frame": frame(t, text), "two frames": two} {
		got, err := f.Decompress(src, kgo.CodecLz4)
		if err != nil || !bytes.HasPrefix(text, got) || len(got) < 60_000 {
			t.Errorf("%s: got %d bytes, %v", name, len(got), err)
		}
	}
	if _, err := f.Decompress(frame(t, make([]byte, 2<<20)), kgo.CodecLz4); err == nil {
		t.Error("a batch beyond the bound was read")
	}
	if _, err := f.Decompress(frame(t, text)[:50], kgo.CodecLz4); err == nil {
		t.Error("half a frame was read")
	}
}

func newLimiter(t testing.TB, maxBatch int) *FetchLimiter {
	f := &FetchLimiter{Room: func() int64 { return 1 << 40 }}
	if _, err := f.Options(maxBatch); err != nil {
		t.Fatal(err)
	}
	return f
}

// FuzzUnlz4 compares with the library's reader of frames, which also compares the frame's
// checksums.
func FuzzUnlz4(f *testing.F) {
	f.Add(frame(f, events(3000)))
	f.Add(frame(f, events(3000), lz4.BlockChecksumOption(true), lz4.SizeOption(3000), lz4.BlockSizeOption(lz4.Block64Kb)))
	f.Add(frame(f, noise(300), lz4.ChecksumOption(false)))
	f.Add(frame(f, nil))
	f.Fuzz(func(t *testing.T, src []byte) {
		const most = 1 << 20
		got, ok := unlz4(src, most)
		if !ok {
			return
		}
		if len(got) > most {
			t.Fatalf("got %d bytes, more than %d", len(got), most)
		}
		want, err := io.ReadAll(lz4.NewReader(bytes.NewReader(src)))
		if err == nil && !bytes.Equal(got, want) {
			t.Fatalf("got %d bytes, the library %d", len(got), len(want))
		}
	})
}

func BenchmarkLZ4(b *testing.B) {
	f := newLimiter(b, 1<<26)
	src := frame(b, events(114_100)) // a hundred events
	for name, decompress := range map[string]func([]byte, kgo.CompressionCodecType) ([]byte, error){"library": f.inner.Decompress, "here": f.Decompress} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(114_100)
			for b.Loop() {
				if _, err := decompress(src, kgo.CodecLz4); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
