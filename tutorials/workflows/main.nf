// Fit, evaluate and plot every file of cells:
//
//     nextflow run tutorials/workflows/main.nf --cells 'cells/*.h5ad' --run run.toml
//
// Labels and options are in run.toml, beside this file. A wrong input ends with exit code 2 and one line in .command.err.
params.cells = 'cells/*.h5ad'
params.run = "${projectDir}/run.toml"
params.results = 'results'

process FIT {
    tag "${cells.simpleName}"
    cpus 1

    input:
    path cells
    path run

    output:
    path "${cells.simpleName}.fitted.h5ad"

    script:
    """
    OMP_NUM_THREADS=${task.cpus} scot-hycnn fit '${cells}' --config '${run}' -o '${cells.simpleName}.fitted.h5ad'
    """
}

process EVALUATE {
    tag "${fitted.simpleName}"
    publishDir params.results

    input:
    path fitted
    path run

    output:
    path "${fitted.simpleName}.scored.h5ad", emit: scored
    path "${fitted.simpleName}.scores.csv"

    script:
    """
    scot-hycnn evaluate '${fitted}' --config '${run}' --csv -o '${fitted.simpleName}.scored.h5ad' > '${fitted.simpleName}.scores.csv'
    """
}

process REPORT {
    tag "${scored.simpleName}"
    publishDir params.results

    input:
    path scored

    output:
    path "${scored.simpleName}.html"
    path "${scored.simpleName}.png"

    script:
    """
    scot-hycnn report '${scored}' -o '${scored.simpleName}.html'
    scot-hycnn plot transport '${scored}' --color cell_type -o '${scored.simpleName}.png'
    """
}

workflow {
    run = file(params.run)
    EVALUATE(FIT(channel.fromPath(params.cells), run), run)
    REPORT(EVALUATE.out.scored)
}
