package config

// DefaultIntegration is the name of the integration that the base of the
// configuration describes. It exists exactly when the base names zerobus.table.
const DefaultIntegration = "default"

// Deployment is one configuration of a process: what its integrations share, and
// each of them. It is complete and consistent; treat it as read-only, it is shared.
type Deployment struct {
	// Base holds the settings of the process: its ops, log and tracing sections, and
	// delivery.max_buffered. Its other sections may be incomplete.
	Base *Config
	// Integrations, in the order of their names. None has a name twice.
	Integrations []Integration
}

// Integration is one integration of a deployment.
type Integration struct {
	Name    string // a slug
	Enabled bool
	// Config has every section. Those of the process are the ones of the base.
	Config *Config
	Source string // the file that describes it; empty where only the environment or flags do
	Line   int    // in Source; 0: unknown
}

// LoadDeployment reads all sources and returns the validated integrations, or an
// error that joins one *Problem for each mistake. No error holds the value of a
// secret.
func LoadDeployment(o Options) (*Deployment, error) {
	c, err := Load(o)
	if err != nil {
		return nil, err
	}
	return Single(c), nil
}
