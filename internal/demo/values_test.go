package demo

import (
	"slices"
	"testing"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/zerobus/emulator"
)

// The values of the generated events are shown, but not to other machines.
func TestValuesOfADemoAreShown(t *testing.T) {
	workspace, err := emulator.New(emulator.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{"127.0.0.1:0": "full", "localhost:9400": "full", "0.0.0.0:9400": "metadata", ":9400": "metadata"} {
		o := quiet("shop")
		o.OpsAddress = address
		settings := (&demo{o: o, workspace: workspace, brokers: "127.0.0.1:1"}).settings("")
		if !slices.Contains(settings.Env, "BRIDGE_OPS_LIVE_EVENTS="+want) {
			t.Errorf("%s: got %q, want live events %s", address, settings.Env, want)
		}
		settings.Partial = true
		if cfg, err := config.Load(settings); err != nil || cfg.Ops.LiveEvents != want {
			t.Errorf("%s: got %v and %v, want live events %s", address, cfg, err, want)
		}
	}
}
