package kafkatest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// certificates are a throwaway authority with one certificate for all brokers
// and one for clients, as files and in memory.
type certificates struct {
	caFile        string
	serverFile    string // key and certificate in one PEM file, as Kafka wants it
	clientFile    string
	clientKeyFile string

	roots          *x509.CertPool
	server, client tls.Certificate
}

func newCertificates(dir string) (*certificates, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	ca := template(1, "kafkatest authority")
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return nil, err
	}
	caCert, err := x509.ParseCertificate(caDER)
	if err != nil {
		return nil, err
	}

	server := template(2, "broker")
	server.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	server.DNSNames = []string{"localhost"}
	server.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	serverCert, serverKey, err := sign(server, caCert, caKey)
	if err != nil {
		return nil, err
	}
	client := template(3, username)
	client.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	clientCert, clientKey, err := sign(client, caCert, caKey)
	if err != nil {
		return nil, err
	}

	c := &certificates{
		caFile:        filepath.Join(dir, "ca.pem"),
		serverFile:    filepath.Join(dir, "server.pem"),
		clientFile:    filepath.Join(dir, "client.pem"),
		clientKeyFile: filepath.Join(dir, "client.key"),
		roots:         x509.NewCertPool(),
	}
	c.roots.AddCert(caCert)
	if c.server, err = tls.X509KeyPair(serverCert, serverKey); err != nil {
		return nil, err
	}
	if c.client, err = tls.X509KeyPair(clientCert, clientKey); err != nil {
		return nil, err
	}
	for name, content := range map[string][]byte{
		c.caFile:        pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}),
		c.serverFile:    append(serverKey, serverCert...),
		c.clientFile:    clientCert,
		c.clientKeyFile: clientKey,
	} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func template(serial int64, name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().AddDate(-2, 0, 0),
		NotAfter:     time.Now().AddDate(2, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
}

// sign makes a key and the certificate for it, both in PEM.
func sign(t, ca *x509.Certificate, caKey *ecdsa.PrivateKey) (cert, key []byte, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	certDER, err := x509.CreateCertificate(rand.Reader, t, ca, k.Public(), caKey)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certDER}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}

// clientConfig presents the client certificate too; brokers that do not ask for
// it never see it.
func (c *certificates) clientConfig() *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS12,
		RootCAs:      c.roots,
		Certificates: []tls.Certificate{c.client},
	}
}

// serverConfig is what kfake listens with.
func (c *certificates) serverConfig(demandClientCert bool) *tls.Config {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{c.server}}
	if demandClientCert {
		conf.ClientAuth, conf.ClientCAs = tls.RequireAndVerifyClientCert, c.roots
	}
	return conf
}
