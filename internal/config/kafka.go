package config

import "time"

// Kafka is the source: which events are read, as whom, and how much at once.
type Kafka struct {
	// Brokers are the seed brokers, host:port; 9092 where the port is left
	// out. Two or three are enough, the rest are discovered. Also accepted as
	// bootstrap_servers. Default localhost:9092.
	Brokers []string `yaml:"brokers"`
	// Topics to read, by exact name. A topic may be created later. Also
	// accepted as topic. Required.
	Topics []string `yaml:"topics"`
	// Group is the consumer group, shared by every replica of one bridge and
	// by nobody else. Default zerobus-bridge. Price of changing it: the new
	// group begins at Start, so events are delivered again or passed over.
	Group string `yaml:"group"`
	// Start says where a topic begins in which the group has committed nothing:
	// earliest or latest. It is committed at the first start; partitions that
	// are added later begin at their start. Default earliest. Price of
	// latest: whatever was produced before the first start is never delivered.
	Start string `yaml:"start"`
	// Isolation is read_committed or read_uncommitted. Default read_committed:
	// the events of aborted transactions are passed over, and those behind an
	// open transaction wait for its end. Trade-off of read_uncommitted: events
	// of open and of aborted transactions are delivered.
	Isolation string `yaml:"isolation"`
	// Protocol is classic (cooperative-sticky) or consumer (KIP-848, brokers
	// from 4.0). Default classic. Price of consumer: the broker sets the
	// session timeout and SessionTimeout is not used.
	Protocol string `yaml:"protocol"`
	// InstanceID makes this member static: a restart within SessionTimeout
	// keeps its partitions without a rebalance. Must differ between replicas.
	// Default empty, a dynamic member. Price: after a crash the partitions
	// wait for SessionTimeout before another member takes them.
	InstanceID string `yaml:"instance_id"`
	// ClientID names this client in the brokers' logs and quotas. Default
	// zerobus-bridge.
	ClientID string `yaml:"client_id"`
	// SessionTimeout is how long the group waits for a silent member before
	// it gives its partitions away. Default 45s. Lower: quicker takeover,
	// more rebalances on a shaky network.
	SessionTimeout time.Duration `yaml:"session_timeout"`
	// RebalanceTimeout is how long the group waits for members to let go of
	// partitions in a rebalance. Default 60s; longer than delivery.drain.
	// Higher: a stuck member holds up the whole group for longer.
	RebalanceTimeout time.Duration `yaml:"rebalance_timeout"`
	// FetchMaxBytes caps one fetch response, per broker. Default 4MiB. Price:
	// up to 14 times this much per broker, decompressed, is held besides
	// delivery.max_buffered.
	FetchMaxBytes Size `yaml:"fetch_max_bytes"`
	// FetchMaxPartitionBytes caps one partition's share of a fetch response.
	// A larger event still arrives, alone. Default 256KiB. Price of raising:
	// memory times partitions; of lowering: more, smaller fetches.
	FetchMaxPartitionBytes Size `yaml:"fetch_max_partition_bytes"`

	TLS  TLS  `yaml:"tls"`
	SASL SASL `yaml:"sasl"`
}

// TLS is the encryption towards the brokers, TLS 1.2 or newer.
type TLS struct {
	// Enabled turns TLS on. Default false.
	Enabled bool `yaml:"enabled"`
	// CAFile is a PEM file of the authorities to trust instead of the
	// system's. Default empty, the system's.
	CAFile string `yaml:"ca_file"`
	// CertFile and KeyFile are this client's PEM certificate and key, for
	// brokers that ask for one (mutual TLS). Both or none. Default empty.
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
	// ServerName is the name the brokers' certificates are held against.
	// Default empty, each broker's host name.
	ServerName string `yaml:"server_name"`
}

// SASL is how the bridge logs in to the brokers.
type SASL struct {
	// Mechanism is none, plain, scram-sha-256, scram-sha-512, oauthbearer or
	// aws-msk-iam; upper case is accepted. aws-msk-iam takes credentials and
	// role from the default AWS chain (environment, shared files, web
	// identity, instance role) and the region from the brokers' names.
	// Default none.
	Mechanism string `yaml:"mechanism"`
	// Username for plain and scram. For Confluent Cloud, the API key.
	Username string `yaml:"username"`
	// Password for plain and scram, or PasswordFile: a file that holds it and
	// is read anew at each login, so it can be rotated. One of the two.
	Password     Secret `yaml:"password"`
	PasswordFile string `yaml:"password_file"`
	// AllowPlaintext lets plain and oauthbearer go without TLS to brokers that
	// are not on the loopback. Default false. Price of true: whoever sees the
	// traffic has the password or the token.
	AllowPlaintext bool  `yaml:"allow_plaintext"`
	OAuth          OAuth `yaml:"oauth"`
}

// OAuth is the client-credentials grant behind mechanism oauthbearer.
type OAuth struct {
	// TokenURL of the authorization server, https (http to loopback only).
	TokenURL string `yaml:"token_url"`
	// ClientID at the authorization server.
	ClientID string `yaml:"client_id"`
	// ClientSecret, or ClientSecretFile: a file that holds it and is read
	// anew at each token request. One of the two.
	ClientSecret     Secret `yaml:"client_secret"`
	ClientSecretFile string `yaml:"client_secret_file"`
	// Scopes to ask for. Default none.
	Scopes []string `yaml:"scopes"`
}

// PasswordSource returns where the SASL password comes from.
func (s SASL) PasswordSource() SecretSource {
	return SecretSource{Key: "kafka.sasl.password", Value: s.Password, File: s.PasswordFile}
}

// ClientSecretSource returns where the OAuth client secret comes from.
func (o OAuth) ClientSecretSource() SecretSource {
	return SecretSource{Key: "kafka.sasl.oauth.client_secret", Value: o.ClientSecret, File: o.ClientSecretFile}
}
