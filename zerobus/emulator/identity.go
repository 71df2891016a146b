package emulator

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"slices"
	"time"
)

// identity is a CA and the server certificate it has signed. Neither key is
// ever written down.
type identity struct {
	caPEM []byte
	leaf  tls.Certificate
}

// LocalDomain is the domain below which the server certificate holds for any
// one label: clients take the first label of the Zerobus endpoint's host for
// the workspace's id.
const LocalDomain = "zerobus.local.cloud.databricks.com"

// identityLifetime is short enough that nobody builds on it, long enough for
// a stand-alone emulator that is left running.
const identityLifetime = 365 * 24 * time.Hour

func newIdentity() (*identity, error) {
	now := time.Now()
	template := func(name string) (*x509.Certificate, error) {
		serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
		return &x509.Certificate{
			SerialNumber: serial, Subject: pkix.Name{CommonName: name},
			NotBefore: now.Add(-time.Hour), NotAfter: now.Add(identityLifetime),
			BasicConstraintsValid: true,
		}, err
	}
	ca, err := template("Zerobus emulator CA")
	if err != nil {
		return nil, fmt.Errorf("make CA: %w", err)
	}
	ca.IsCA, ca.MaxPathLenZero, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make CA key: %w", err)
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return nil, fmt.Errorf("make CA: %w", err)
	}
	leaf, err := template("localhost")
	if err != nil {
		return nil, fmt.Errorf("make server certificate: %w", err)
	}
	leaf.DNSNames, leaf.IPAddresses = []string{"localhost", "*." + LocalDomain}, []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	leaf.KeyUsage, leaf.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make server key: %w", err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, &leafKey.PublicKey, caKey)
	if err != nil {
		return nil, fmt.Errorf("make server certificate: %w", err)
	}
	return &identity{
		caPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}),
		leaf:  tls.Certificate{Certificate: [][]byte{leafDER, caDER}, PrivateKey: leafKey},
	}, nil
}

func (i *identity) config() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{i.leaf}, MinVersion: tls.VersionTLS12}
}

// endpointConfig is for the port that gRPC and REST share. A client that knows
// HTTP/1.1 is no gRPC client, and gets it.
func (i *identity) endpointConfig() *tls.Config {
	both := i.config()
	h1, h2 := i.config(), i.config()
	h1.NextProtos, h2.NextProtos = []string{"http/1.1"}, []string{"h2"}
	both.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if len(hello.SupportedProtos) == 0 || slices.Contains(hello.SupportedProtos, "http/1.1") {
			return h1, nil
		}
		return h2, nil
	}
	return both
}
