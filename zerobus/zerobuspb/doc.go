// Package zerobuspb is the wire of Zerobus Ingest over gRPC: zerobus.proto and
// what protoc makes of it. make proto writes the .pb.go files anew.
package zerobuspb

//go:generate protoc --proto_path=. --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative zerobus.proto
