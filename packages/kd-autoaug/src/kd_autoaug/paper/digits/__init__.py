"""The experiment of the claim: small networks on few digits, augmented more and less, with and without a teacher."""
