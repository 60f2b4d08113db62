"""Publishing: checkpoints signed, cosigned, stamped and copied, and never contradicted."""
