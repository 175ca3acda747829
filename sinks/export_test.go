package sinks

// VendorDestination is a destination of a kind, at a stand-in of its vendor.
var VendorDestination = vendor

// Nobody is a URL where nobody listens any more.
var Nobody = nobody
