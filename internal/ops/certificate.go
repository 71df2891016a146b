package ops

import (
	"crypto/tls"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/plaintext"
)

// Certificate returns what reads a certificate and its key, PEM files, again when they
// change. Files that cannot be used leave the last one in force, with one log line. keys
// are those of the configuration that name the files, for errors.
func Certificate(certFile, keyFile, keys string, log *zap.Logger) func() (*tls.Certificate, error) {
	var mu sync.Mutex
	var kept *tls.Certificate
	var seen string // what the files looked like at the last attempt
	return func() (*tls.Certificate, error) {
		mu.Lock()
		defer mu.Unlock()
		look := lookOf(certFile) + lookOf(keyFile)
		if kept != nil && look == seen {
			return kept, nil
		}
		seen = look
		next, err := readCertificate(certFile, keyFile)
		switch {
		case err == nil:
			kept = next
		case kept == nil:
			return nil, fmt.Errorf("reading %s: %w; give PEM files that belong together", keys, err)
		default:
			log.Warn("the certificate is not renewed; the last one is used", zap.String("keys", keys), zap.Error(err))
		}
		return kept, nil
	}
}

// lookOf returns what changes when a file does.
func lookOf(name string) string {
	info, err := plaintext.Stat(name)
	if err != nil {
		return err.Error() + "\n"
	}
	return fmt.Sprintln(info.Size(), info.ModTime().Format(time.RFC3339Nano))
}

func readCertificate(certFile, keyFile string) (*tls.Certificate, error) {
	cert, err := plaintext.ReadPEM(certFile)
	if err != nil {
		return nil, err
	}
	key, err := plaintext.ReadPEM(keyFile)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", certFile, keyFile, err)
	}
	return &pair, nil
}
