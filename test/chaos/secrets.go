package main

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"sync"
)

// secrets are the client secrets of a run: what no log may show. It is safe
// for concurrent use.
type secrets struct {
	file string // which the members read

	mu  sync.Mutex // guards all
	all [][]byte
}

func newSecrets(file string) *secrets { return &secrets{file: file} }

// fresh makes another secret.
func (s *secrets) fresh() string {
	secret := "dose" + rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, []byte(secret))
	return secret
}

// write puts a secret where the members read it, whole or not at all.
func (s *secrets) write(secret string) error {
	next := s.file + ".next"
	if err := os.WriteFile(next, []byte(secret), 0o600); err != nil {
		return fmt.Errorf("writing the client secret: %w; free some space", err)
	}
	return os.Rename(next, s.file)
}

// in reports whether a line shows a secret, or a bearer token.
func (s *secrets) in(line []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, secret := range s.all {
		if bytes.Contains(line, secret) {
			return true
		}
	}
	return bytes.Contains(line, []byte("Bearer "))
}
