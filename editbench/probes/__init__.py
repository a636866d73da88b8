"""What jobs measure on pictures after the walk; see editbench.probe for the contract."""
