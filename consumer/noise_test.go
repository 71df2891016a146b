package consumer_test

import (
	"encoding/hex"
	"math/rand/v2"
)

// noise is n characters that no compression makes much smaller.
func noise(n int) string {
	raw := make([]byte, n/2+1)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(raw) // never fails
	return hex.EncodeToString(raw)[:n]
}
