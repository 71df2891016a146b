package config_test

import (
	"strings"
	"testing"

	"github.com/datafly/bridge/internal/config"
)

// Every key that holds a secret is refused on the command line, with the two
// ways that nobody else can read.
func TestSecretsAreRefusedOnTheCommandLine(t *testing.T) {
	secrets := 0
	for _, k := range config.Keys() {
		err := config.RefuseSecrets([]string{"kafka.group=g", " " + k.Path + " =" + hush})
		if k.Type != "secret" {
			if err != nil {
				t.Errorf("%s: got %v, want it allowed", k.Path, err)
			}
			continue
		}
		secrets++
		if err == nil || !strings.Contains(err.Error(), "--set "+k.Path+"_file=FILE") || !strings.Contains(err.Error(), k.Env) || strings.Contains(err.Error(), hush) {
			t.Errorf("%s: got %v, want the file and %s named and no secret", k.Path, err, k.Env)
		}
		if err := config.RefuseSecrets([]string{k.Path + "="}); err != nil {
			t.Errorf("%s: got %v, want it taken back without one", k.Path, err)
		}
	}
	if secrets < 4 {
		t.Errorf("got %d secret keys, want all", secrets)
	}
}
